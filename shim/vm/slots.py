"""Where a device can be plugged in: a fixed number of PCI Express root ports, one device each.

The ports are part of the machine (and so of a template); which device sits in which is
ours to know, because QEMU says only "bus 'slot3' is in use" once it is too late.
"""

from shim.errors import ResourceError


class Slots:
    """Gives out the slots of one machine, lowest number first."""

    def __init__(self, count: int) -> None:
        self._holders: list[str | None] = [None] * count

    def take(self, device: str) -> str:
        """Reserve the lowest free slot for `device` and answer the name of its bus.

        Raises ResourceError when every slot is taken, or the device has one already.
        """
        if device in self._holders:
            raise ResourceError(f"device {device} is plugged in already")
        for number, holder in enumerate(self._holders):
            if holder is None:
                self._holders[number] = device
                return f"slot{number}"
        raise ResourceError(
            f"device {device}: all {len(self._holders)} slots of the virtual machine are taken",
            hint="use fewer disks and interfaces in one virtual machine",
        )

    def free(self, device: str) -> None:
        """Give the slot of `device` back; a device without one is no error."""
        if device in self._holders:
            self._holders[self._holders.index(device)] = None

    @property
    def taken(self) -> dict[str, str]:
        """Which device is in which slot: {"slot0": "vsock"}."""
        return {f"slot{number}": holder for number, holder in enumerate(self._holders) if holder is not None}
