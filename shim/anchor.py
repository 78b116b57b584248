"""The process whose pid containerd and its clients are shown as the task's.

The container's processes are in the machine and have no pid on the host. But clients
look at `/proc/PID` of a task: nerdctl reads addresses from `ns/net`, `cp` writes through
`root`, containerd asks whether the pid lives. QEMU's pid would hand them the host's
root directory. So each container has this small process: in a mount namespace that holds
nothing but an empty root, in the container's network namespace, or one of its own where it
has none, ended with the shim. It lives as long as what it stands for: ended before that is
told, and whoever ends it ends that.

What it is forked from and does: anchor_process.py.
"""

import asyncio
import contextlib
import os
import signal
import socket
from pathlib import Path

from shim import deadlines
from shim.anchor_process import MOVE, READY, Source
from shim.descriptors import readable
from shim.reclaim import open_marked


class Anchor:
    """A running anchor process."""

    def __init__(self, pid: int, pidfd: int, orders: socket.socket) -> None:
        # Its pid on the host.
        self.pid = pid
        self._pidfd = pidfd
        self._orders = orders
        # Done when it has ended (pidfd_open(2)), and the kernel has reaped it.
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(pidfd, self._note_end)

    def _note_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self.ended.set_result(None)

    async def move(self, netns_fd: int, *, deadline_s: float) -> None:
        """Have it go into another network namespace. Raises OSError, after which it has ended, or TimeoutError."""
        try:
            socket.send_fds(self._orders, [MOVE], [netns_fd])
            async with asyncio.timeout(deadline_s):
                await _hear(self._orders)
        except ConnectionError as error:
            raise OSError("it has ended") from error

    def settle(self) -> None:
        """It need not move any more: nothing is held for that."""
        self._orders.close()

    async def stop(self) -> None:
        """End it, and return when it is gone. Raises TimeoutError."""
        if self._pidfd < 0:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        async with asyncio.timeout(deadlines.ANCHOR_KILL_S):
            await asyncio.shield(self.ended)
        # Not before: a `move` under way hears of the end by it, and of nothing where we have closed it.
        self.settle()
        if self._pidfd >= 0:  # another caller may have been faster
            os.close(self._pidfd)
            self._pidfd = -1


class Anchors:
    """Makes anchors, any number at once, by the source that the shim has forked before its event loop."""

    def __init__(self, source: Source) -> None:
        self.source = source
        source.orders.setblocking(False)

    async def start(self, root: Path, *, netns_fd: int = -1, movable: bool = False, deadline_s: float) -> Anchor:
        """Start an anchor; `root` is an empty directory for it to mount on.

        It is in the network namespace of which `netns_fd` is an open file, which stays the caller's, or in one of its
        own. With `movable` it can go into another one, until `settle`. Raises OSError or TimeoutError.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            try:
                given = [theirs.fileno()] if netns_fd < 0 else [theirs.fileno(), netns_fd]
                socket.send_fds(self.source.orders, [os.fsencode(root)], given)
            except ConnectionError as error:
                raise OSError(f"process {self.source.pid}, which makes them, has ended") from error
            finally:
                theirs.close()
            anchor = await self._ready(ours, deadline_s)
        except BaseException:
            ours.close()
            raise
        if not movable:
            anchor.settle()
        return anchor

    async def _ready(self, orders: socket.socket, deadline_s: float) -> Anchor:
        """The anchor at the other end of `orders`, once it is in its place."""
        said = bytearray()
        try:
            async with asyncio.timeout(deadline_s):
                await _hear(orders, said)
        except BaseException:
            if (anchor := self._open(bytes(said), orders)) is not None:
                await anchor.stop()
            raise
        anchor = self._open(bytes(said), orders)
        if anchor is None:
            raise OSError("it ended as soon as it was ready")
        return anchor

    def _open(self, said: bytes, orders: socket.socket) -> Anchor | None:
        """The anchor that has said this; None where there is none, or none any more."""
        pid, newline, _rest = said.partition(b"\n")
        if not pid or not newline:
            return None
        pidfd = open_marked(int(pid), self.source.marker.encode())
        return None if pidfd is None else Anchor(int(pid), pidfd, orders)


async def _hear(orders: socket.socket, said: bytearray | None = None) -> None:
    """Return once an anchor says that it is in its place; `said` gets all that it says. Raises OSError if it ends."""
    said = bytearray() if said is None else said
    while not said.endswith(READY):
        await readable(orders.fileno())
        data = orders.recv(4096)
        if not data:
            raise OSError(f"it ended before it was ready: {_reason(bytes(said))}")
        said += data


def _reason(said: bytes) -> str:
    return said.rpartition(b"\n")[2].decode(errors="replace") or "killed"
