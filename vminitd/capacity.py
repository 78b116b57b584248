"""vCPUs and memory: what the host has plugged in is brought into use, or waited for.

vCPUs are all present from the start and offline (`maxcpus=1`); they are switched on and off here. Memory is a
virtio-mem device's; the kernel plugs and onlines it on its own (`memhp_default_state=online`), a block after the
other, and tells of each block that is online by an event (drivers/base/core.c, device_online).

What a machine starts with comes while its container is made: 512 MiB take the guest's processor 15 ms, 4 GiB 70 ms,
under TCG. Only what runs in the container must find all of it, so that is what waits (`there`): a program may size
itself by what it sees first, and whoever allocates all its limit at once must find it.
"""

import asyncio

from vminitd import deadlines, log
from vminitd.boot import write
from vminitd.errors import DeviceError, KernelError, RequestError
from vminitd.uevent import Uevents

_CPUS = "/sys/devices/system/cpu"
_PAGE_KIB = 4
# The first MiB has holes where a PC has its video memory and firmware.
_HOLES_KIB = 2048


class Capacity:
    """The size of the machine. `cpus` is the kernel's directory of processors."""

    def __init__(self, uevents: Uevents, cpus: str = _CPUS) -> None:
        self._uevents = uevents
        self._cpus = cpus
        self._coming: asyncio.Task[None] | None = None
        # One change of the number of vCPUs after the other.
        self._changing = asyncio.Lock()

    def expect(self, vcpus: int, memory_mib: int) -> None:
        """`vcpus` are to come online, and memory up to `memory_mib` in all is on its way; 0 leaves it as it is."""
        self._coming = asyncio.create_task(self._come(vcpus, memory_mib), name="capacity")

    async def there(self) -> None:
        """Returns when all that was expected is there. Raises DeviceError or KernelError if it does not come."""
        if self._coming is not None:
            await asyncio.shield(self._coming)

    async def set_cpus_online(self, wanted: int) -> None:
        """Switches vCPUs on, or off from the last one, until `wanted` are on.

        Raises RequestError for none, DeviceError if there are not so many, KernelError where the kernel refuses.
        """
        async with self._changing:
            await asyncio.to_thread(self._set_cpus_online, wanted)

    async def _come(self, vcpus: int, memory_mib: int) -> None:
        if vcpus > 1:  # the one that it has booted with is there
            await self.set_cpus_online(vcpus)
        if memory_mib:
            await wait_for_memory(self._uevents, memory_mib)
        log.debug("all there", vcpus=vcpus, memory_mib=memory_mib)

    def _set_cpus_online(self, wanted: int) -> None:
        present, online = (parse_list(_read(f"{self._cpus}/{name}")) for name in ("present", "online"))
        for number, switch in switches(present, online, wanted):
            try:
                write(f"{self._cpus}/cpu{number}/online", "1" if switch else "0")
            except OSError as error:
                way = "online" if switch else "offline"
                raise KernelError(f"vCPU {number} does not go {way}: {error.strerror}") from error


def switches(present: set[int], online: set[int], wanted: int) -> list[tuple[int, bool]]:
    """Which vCPUs to switch on (True) or off so that `wanted` are on, in order; the first is never off. Pure.

    Raises RequestError or DeviceError.
    """
    if wanted < 1:
        raise RequestError(f"{wanted} vCPUs are wanted: a machine has at least 1")
    if len(present) < wanted:
        raise DeviceError(f"{wanted} vCPUs are wanted, but the machine has {len(present)}")
    if wanted >= len(online):
        return [(number, True) for number in sorted(present - online)[: wanted - len(online)]]
    return [(number, False) for number in sorted(online, reverse=True)[: len(online) - wanted]]


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


async def wait_for_memory(uevents: Uevents, wanted_mib: int, zoneinfo: str = "/proc/zoneinfo") -> None:
    """Returns when the machine's memory, boot and hot-added, is `wanted_mib`. Raises DeviceError if it never is.

    For the first memory of a machine: it comes in new blocks, each told of once its part is plugged and online. What
    is plugged later into blocks that are online already is told of to the host alone (MEMORY_DEVICE_SIZE_CHANGE).
    """

    def have_kib() -> int:
        return total_kib(_read(zoneinfo))

    try:
        await uevents.until(lambda: have_kib() + _HOLES_KIB >= wanted_mib << 10 or None, "memory", deadlines.CAPACITY)
    except DeviceError:
        raise DeviceError(
            f"of {wanted_mib} MiB of memory there are {have_kib() >> 10} MiB after {deadlines.CAPACITY:g} s"
        ) from None


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()
