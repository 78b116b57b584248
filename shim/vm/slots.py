"""Where a device can be plugged in: the slots of the machine's PCI bridge, one device each.

The bridge is part of the machine (and so of a template); which device sits in which
slot is ours to know: a slot has to be the same for the same device in every machine,
and the bridge has no slot 0.
"""

from shim.errors import ResourceError


class Slots:
    """Gives out the slots of one machine, lowest number first."""

    def __init__(self, count: int) -> None:
        self._holders: list[str | None] = [None] * count

    def take(self, device: str) -> int:
        """Reserve the lowest free slot for `device` and answer its number, from 1.

        Raises ResourceError when every slot is taken, or the device has one already.
        """
        if device in self._holders:
            raise ResourceError(f"device {device} is plugged in already")
        for number, holder in enumerate(self._holders):
            if holder is None:
                self._holders[number] = device
                return number + 1
        raise ResourceError(
            f"device {device}: all {len(self._holders)} slots of the virtual machine are taken",
            hint="use fewer disks and interfaces in one virtual machine",
        )

    def free(self, device: str) -> None:
        """Give the slot of `device` back; a device without one is no error."""
        if device in self._holders:
            self._holders[self._holders.index(device)] = None

    @property
    def taken(self) -> dict[str, int]:
        """Which slot each device is in: {"vsock": 1}."""
        return {holder: number + 1 for number, holder in enumerate(self._holders) if holder is not None}
