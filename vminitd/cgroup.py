"""The cgroup of one container: who is in it, freezing, killing, what it used up.

crun makes it and removes it; this only reads and writes its files (cgroup v2:
https://docs.kernel.org/admin-guide/cgroup-v2.html).
"""

import asyncio
import os
import select
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress

from vminitd.boot import CGROUP_ROOT, write
from vminitd.errors import KernelError, StateError
from vminitd.figures import Figures

PARENT = "/qemubox"
"""Below the root of all cgroups, as in a specification's cgroupsPath."""


def parse_flat(text: str) -> dict[str, int]:
    """A "flat keyed" file: one "KEY NUMBER" a line. Pure."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"


async def changed_until(descriptor: int, holds: Callable[[], bool]) -> None:
    """Returns when `holds`, which reads the file anew; asked again whenever the kernel says that the file has changed.

    It says so by POLLPRI, until the file is read again. asyncio can wait for input alone, and such a file always has
    that; but an epoll descriptor is a file, too, and has input when one of those that it watches has what it waits for.
    """
    loop, changed = asyncio.get_running_loop(), asyncio.Event()
    with select.epoll() as epoll:
        epoll.register(descriptor, select.EPOLLPRI)
        loop.add_reader(epoll.fileno(), changed.set)
        try:
            while not holds():
                await changed.wait()
                changed.clear()
        finally:
            loop.remove_reader(epoll.fileno())


class Cgroup:
    """`path` is as in a specification: "/qemubox/NAME"."""

    def __init__(self, path: str, root: str = CGROUP_ROOT) -> None:
        self.path = path
        self.directory = root + path
        self.figures = Figures(self.directory)

    def pids(self) -> list[int]:
        """Every process in it and in the groups below it; none if it does not exist."""
        found: list[int] = []
        for directory in self._directories():
            with suppress(FileNotFoundError, OSError), open(f"{directory}/cgroup.procs") as file:
                found += [int(line) for line in file if line.strip() != "0"]
        return found

    def kill(self, number: int) -> None:
        """Signals every process in it. SIGKILL reaches also those that are being forked just then."""
        if number == signal.SIGKILL:
            with suppress(FileNotFoundError):
                write(f"{self.directory}/cgroup.kill", "1")
            return
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    async def freeze(self) -> None:
        """Stops every process in it, and returns when all stand still. Raises OSError.

        A caller that waits no longer must `thaw`.
        """
        events = os.open(f"{self.directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        try:
            write(f"{self.directory}/cgroup.freeze", "1")
            await changed_until(events, lambda: parse_flat(os.pread(events, 4096, 0).decode()).get("frozen") == 1)
        finally:
            os.close(events)

    def thaw(self) -> None:
        """Lets them run again; nothing if there is no such cgroup any more. Raises OSError."""
        with suppress(FileNotFoundError):
            write(f"{self.directory}/cgroup.freeze", "0")

    @asynccontextmanager
    async def held_below(self, limit: int) -> AsyncIterator[None]:
        """Its processes get no further than `limit` bytes of memory for the time of the block, in which that becomes
        their limit.

        The kernel kills for a limit that is below what is in use. memory.high kills nobody: setting it takes back what
        can be (caches), and whoever then wants more waits. Raises StateError if more than that is in use even so.
        """
        before = self._read("memory.high").decode().strip()
        await self._throttle_above(str(limit))
        try:
            used = int(self._read("memory.current") or 0)
            if used > limit:
                raise StateError(f"the container uses {_mib(used)} of memory: it cannot be limited to {_mib(limit)}")
            yield
        finally:
            await self._throttle_above(before)

    async def _throttle_above(self, value: str) -> None:
        try:
            await asyncio.to_thread(write, f"{self.directory}/memory.high", value)
        except OSError as error:
            raise KernelError(f"cannot set memory.high of {self.path} to {value}: {error.strerror}") from error

    def oom_kills(self) -> int:
        """How many of its processes the kernel has killed for want of memory."""
        return parse_flat(self._read("memory.events").decode()).get("oom_kill", 0)

    def _read(self, name: str) -> bytes:
        try:
            with open(f"{self.directory}/{name}", "rb") as file:
                return file.read()
        except OSError:
            return b""

    def _directories(self) -> Iterator[str]:
        for directory, _, _ in os.walk(self.directory):
            yield directory
