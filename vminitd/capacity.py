"""vCPUs and memory: what the host has plugged in is brought into use, or waited for.

vCPUs are all present from the start and offline (`maxcpus=1`); they are switched on here. Memory is a virtio-mem
device's; the kernel plugs and onlines it on its own (`memhp_default_state=online`), a block after the other.
"""

import asyncio
import time

from vminitd import deadlines
from vminitd.boot import write
from vminitd.errors import DeviceError, KernelError
from vminitd.uevent import Uevents

_CPUS = "/sys/devices/system/cpu"
_PAGE_KIB = 4
# The first MiB has holes where a PC has its video memory and firmware.
_HOLES_KIB = 2048
# Memory that is plugged into a block which is online already is not told of by an event.
_LOOK_AGAIN_S = 0.05


def parse_list(text: str) -> set[int]:
    """A kernel's list of numbers: "0,2-4". Pure."""
    numbers: set[int] = set()
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            numbers.update(range(int(first), int(last or first) + 1))
    return numbers


def total_kib(zoneinfo: str) -> int:
    """All memory that the machine was given and can use by now, the kernel's own share included. Pure.

    MemTotal leaves out what the kernel took at boot. So: all that is present, but of ZONE_MOVABLE, where only
    hot-added memory is, what is managed, since a block may be plugged in part. A block in another zone counts whole;
    it is there only once its part is plugged.
    """
    pages, zone = 0, ""
    for line in zoneinfo.splitlines():
        words = line.split()
        if line.startswith("Node") and len(words) == 4:
            zone = words[3]
        elif len(words) == 2 and words[0] == ("managed" if zone == "Movable" else "present"):
            pages += int(words[1])
    return pages * _PAGE_KIB


async def bring_cpus_online(wanted: int) -> None:
    """Switches vCPUs on until `wanted` are, in their order. Raises DeviceError if there are not so many."""
    await asyncio.to_thread(_bring_cpus_online, wanted)


def _bring_cpus_online(wanted: int) -> None:
    present = sorted(parse_list(_read(f"{_CPUS}/present")))
    if len(present) < wanted:
        raise DeviceError(f"{wanted} vCPUs are wanted, but the machine has {len(present)}")
    online = parse_list(_read(f"{_CPUS}/online"))
    for number in present:
        if len(online) >= wanted:
            return
        if number not in online:
            try:
                write(f"{_CPUS}/cpu{number}/online", "1")
            except OSError as error:
                raise KernelError(f"vCPU {number} does not come online: {error.strerror}") from error
            online.add(number)


async def wait_for_memory(uevents: Uevents, wanted_mib: int) -> None:
    """Returns when the machine's memory, boot and hot-added, is `wanted_mib`. Raises DeviceError if it never is."""
    deadline = time.monotonic() + deadlines.CAPACITY
    while (left_s := deadline - time.monotonic()) > 0:
        try:
            await uevents.until(lambda: _is_there(wanted_mib), "memory", min(_LOOK_AGAIN_S, left_s))
            return
        except DeviceError:
            continue
    have_mib = total_kib(_read("/proc/zoneinfo")) >> 10
    raise DeviceError(f"of {wanted_mib} MiB of memory there are {have_mib} MiB after {deadlines.CAPACITY:g} s")


def _is_there(wanted_mib: int) -> bool | None:
    return total_kib(_read("/proc/zoneinfo")) + _HOLES_KIB >= wanted_mib << 10 or None


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()
