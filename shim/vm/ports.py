"""The virtio-serial ports of one machine: the way between shim and guest where vsock is not the kernel's.

Each port is a socket pair, one end QEMU's. The one for control and those of the first
container's streams are there from the start, so that a clone's guest has them open, or finds
them, without being told of any device. Further streams get ports that are plugged into the
device while the machine runs, and every port that the guest has closed is taken out again.

QEMU says when the guest has opened or closed a port, but of one port once a second at most,
and then only what was last (monitor.c, monitor_qapi_event_conf). So a number that is used
again within that time would take the word of its use before for its own, or never get one:
each use has an id of its own, and what is said of one that is over is not heard.

In the guest only vminitd can open a port: containers have no such device. On the host there
is no name to connect to. docs/decisions/0009 has the measurements.
"""

import asyncio
import socket

from shim.errors import ResourceError, StateError
from shim.vm.machine import MAX_PORTS, STREAM_PORTS, port_id

# A stream that the guest was told of is there: nothing is dialled.
_Opened = asyncio.Future[socket.socket]


class Ports:
    """The ports of a machine that is about to be launched; `children` are QEMU's ends, to be released afterwards."""

    def __init__(self) -> None:
        self.children: list[socket.socket] = []
        # Our ends of the ports that are there, by number: 0 is control, the others have not been given out yet.
        self._ours: dict[int, socket.socket] = {}
        self._taken: set[int] = set()
        # How often each number has been used before, where it has.
        self._uses: dict[int, int] = {}
        # Set whenever a number has become free.
        self._freed = asyncio.Event()
        for number in range(1 + STREAM_PORTS):
            self.children.append(self._pair(number))

    def release_children(self) -> None:
        """Close our copies of QEMU's ends, so that its exit is the end of every stream."""
        for child in self.children:
            child.close()
        self.children.clear()

    def control(self) -> socket.socket:
        """The control connection, for the caller to own. Raises StateError the second time."""
        if 0 not in self._ours:
            raise StateError("the control connection was given out already")
        return self._ours.pop(0)

    async def take(self, wait_s: float) -> int:
        """The number of a free port, of those that are there if possible.

        Where all are in use, those that the guest has closed may be on their way out: that is
        waited for. Raises ResourceError when none gets free.
        """
        end = asyncio.get_running_loop().time() + wait_s
        while not (number := self._take()):
            self._freed.clear()
            try:
                async with asyncio.timeout_at(end):
                    await self._freed.wait()
            except TimeoutError:
                raise ResourceError(
                    f"the {MAX_PORTS - 2} streams that a virtual machine can have at once are all in use",
                    hint="end some of the processes, or run them with fewer streams",
                ) from None
        return number

    def _take(self) -> int:
        """See above; 0 where there is none."""
        for number in range(1, MAX_PORTS - 1):
            if number not in self._taken:
                self._taken.add(number)
                return number
        return 0

    def device(self, number: int) -> str:
        """What QEMU knows the port by now."""
        return port_id(number, self._uses.get(number, 0))

    def number(self, device: str) -> int:
        """The number of the port that QEMU knows by this now; 0, control's, for anything else."""
        return next((number for number in self._taken if self.device(number) == device), 0)

    def is_there(self, number: int) -> bool:
        """Whether the port is part of the machine already."""
        return number in self._ours

    def is_taken(self, number: int) -> bool:
        """Whether the port was given out for a stream."""
        return number in self._taken

    def add(self, number: int) -> socket.socket:
        """Make the socket pair of a port that is to be plugged in; the answer is QEMU's end, the caller's to close."""
        return self._pair(number)

    def open(self, number: int) -> _Opened:
        """Our end of a taken port's stream, as what `VsockBackend.expect` answers."""
        opened: _Opened = asyncio.get_running_loop().create_future()
        opened.set_result(self._ours.pop(number))
        return opened

    def free(self, number: int) -> None:
        """The port is out of the machine: its number may be used again."""
        self._taken.discard(number)
        self._uses[number] = self._uses.get(number, 0) + 1
        self._freed.set()
        if (ours := self._ours.pop(number, None)) is not None:
            ours.close()

    def close(self) -> None:
        """Close what was not given out."""
        self.release_children()
        for ours in self._ours.values():
            ours.close()
        self._ours.clear()

    def _pair(self, number: int) -> socket.socket:
        ours, child = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        self._ours[number] = ours
        return child
