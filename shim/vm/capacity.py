"""Memory of a running machine: asks the guest to take more or to give some back, and waits until it has.

virtio-mem is asked by its `requested-size`; the guest's kernel then plugs or unplugs, and QEMU tells of each change of
its `size` by MEMORY_DEVICE_SIZE_CHANGE, the first at once, further ones no more often than once a second
(monitor/monitor.c, monitor_qapi_event_conf). What was given back is no longer the machine's on the host.
"""

import asyncio
from typing import Final

from shim import untrusted
from shim.errors import GuestError, MachineError
from shim.vm import devices
from shim.vm.machine import MEMORY_DEVICE
from shim.vm.qmp import Event, Qmp
from ttrpc import Code

# One part in so many of hot-added memory is the kernel's own (memory_hotplug.auto_movable_ratio, 301 %).
KERNELS_PART: Final = 4
# QEMU's events come a second apart.
KEPT_S: Final = 3.0


async def settle(qmp: Qmp, requested_mib: int, *, stall_s: float, limit_s: float) -> int:
    """Ask the guest to have `requested_mib` of the memory device, and return once it has; answers what it has.

    When it is to give back, that may be more: a quarter of this memory is the guest kernel's own (decision 0003), and
    what lies in there cannot be moved. Once only that is left, silence is enough (KEPT_S): the request stays, the
    guest's kernel tries again by itself, and what is free in it is reported to the host.

    Raises GuestError, with how far it got, when nothing has changed for `stall_s`, or it is not there after `limit_s`.
    """
    changed = asyncio.Event()

    def on_event(event: Event) -> None:
        if event.name == "MEMORY_DEVICE_SIZE_CHANGE" and event.data.get("id") == MEMORY_DEVICE:
            changed.set()

    stop = qmp.on_event(on_event)
    before_mib = size_mib = await _size_mib(qmp)
    enough_mib = requested_mib + (before_mib // KERNELS_PART if requested_mib < before_mib else 0)

    def enough() -> bool:
        return requested_mib <= size_mib <= enough_mib and size_mib != before_mib

    try:
        async with asyncio.timeout(limit_s):
            await qmp.execute("qom-set", devices.memory_request(requested_mib))
            while (size_mib := await _size_mib(qmp)) != requested_mib:
                async with asyncio.timeout(min(KEPT_S, stall_s) if enough() else stall_s):
                    await changed.wait()
                changed.clear()
    except TimeoutError:
        if not enough():
            raise GuestError(Code.DEADLINE_EXCEEDED, _shortfall(before_mib, size_mib, requested_mib)) from None
    finally:
        stop()
    return size_mib


async def _size_mib(qmp: Qmp) -> int:
    """What the guest has of it."""
    answer = await qmp.execute("qom-get", {"path": devices.memory_path(), "property": "size"})
    if not isinstance(answer, int):
        said = untrusted.plain(repr(answer), untrusted.NAME_LIMIT)
        raise MachineError(f"QEMU does not tell the size of the memory device: {said}")
    return answer // devices.MIB


def _shortfall(before_mib: int, size_mib: int, requested_mib: int) -> str:
    if requested_mib < before_mib:
        return f"the guest gave back {before_mib - size_mib} of {before_mib - requested_mib} MiB of memory"
    return f"the guest took {size_mib - before_mib} of {requested_mib - before_mib} MiB of memory"
