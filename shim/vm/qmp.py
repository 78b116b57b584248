"""QEMU's control connection: commands with a deadline, files handed over, events told on.

A thin layer over `qemu.qmp`, QEMU's own client. It adds a deadline to every command,
turns every way to fail into one error with the command's name, and pairs a file
descriptor (SCM_RIGHTS) with the command that takes it. Importing `qemu.qmp` costs
60 ms, so this module is imported once QEMU has been started (see vm.py).

Commands, events and their members: QEMU QMP Reference Manual.
"""

import array
import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from qemu.qmp import EventListener, ExecuteError, Message, QMPClient, QMPError, Runstate

from shim import untrusted
from shim.errors import MachineError

# How many descriptors are sent without waiting for an answer: as many commands fit a socket's buffer many times.
_FDS_AT_ONCE: Final = 64
# What the library's reader dies of beside its own errors, by messages of a QEMU that its guest has taken over: numbers
# too long or lists too deep for json.loads, an id that is none. It raises that where it is hung up.
_UNREADABLE: Final = (ValueError, RecursionError, TypeError)
# A lost connection is told by the process' end and by the errors here; the library's own words would say it twice.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Event:
    """An asynchronous event of QEMU, such as DEVICE_DELETED."""

    name: str
    data: Mapping[str, object]


class _Client(QMPClient):
    """QEMU's client, without the offer of commands out of band, of which we have none.

    For a client that may send such, QEMU reads in one thread, and on, while another carries a command out: that takes
    three times as long (add-fd, QEMU 7.2, 2026-11: 0.65 ms and 0.21 ms), and a descriptor that comes meanwhile takes
    the place of the one before (monitor/qmp.c, handle_qmp_command; chardev/char-socket.c, tcp_chr_recv).
    """

    @classmethod
    def make_execute_msg(cls, cmd: str, arguments: Mapping[str, object] | None = None, oob: bool = False) -> Message:
        """One command; that of the negotiation names no capability."""
        return super().make_execute_msg(cmd, None if cmd == "qmp_capabilities" else arguments, oob)


class Qmp:
    """A connection to one QEMU. All methods belong to the loop that made it."""

    def __init__(self, command_timeout_s: float) -> None:
        self._timeout_s = command_timeout_s
        self._client = _Client("qemubox")
        self._events = EventListener()
        self._client.register_listener(self._events)
        self._handlers: list[Callable[[Event], None]] = []
        # Held from sending a descriptor to the answer of the command that takes it: QEMU keeps only one in hand.
        self._fd_in_hand = asyncio.Lock()
        self._dispatcher: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None

    async def open(self, sock: socket.socket) -> None:
        """Greet and negotiate on a connected socket, which belongs to this object from now on.

        Raises MachineError if QEMU does not answer within the deadline or hangs up.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._client.connect(sock)
        except TimeoutError:
            raise MachineError(f"QEMU did not greet within {self._timeout_s:g} s") from None
        except (QMPError, OSError, EOFError) as error:
            raise MachineError(f"QEMU closed its control connection: {error}") from error
        self._socket = sock
        self._dispatcher = asyncio.create_task(self._dispatch(), name="qmp-events")

    @property
    def connected(self) -> bool:
        """Whether commands can be sent."""
        return self._client.runstate is Runstate.RUNNING

    async def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, *, timeout_s: float | None = None
    ) -> object:
        """Run one command and answer its `return` value.

        Raises MachineError with QEMU's own words when it refuses, when the deadline
        passes (the command may still be carried out), and when the connection is lost.
        """
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await self._client.execute(command, arguments)
        except ExecuteError as error:
            words = untrusted.plain(str(error))  # on their way to logs and terminals, of a QEMU that may be its guest's
            raise MachineError(f"QEMU refused {_describe(command, arguments)}: {words}") from error
        except TimeoutError:
            raise MachineError(f"QEMU did not answer {_describe(command, arguments)} within {limit_s:g} s") from None
        except (QMPError, OSError, EOFError) as error:
            raise MachineError(f"QEMU went away during {_describe(command, arguments)}") from error

    async def add_fd(self, fdset: int, fd: int) -> None:
        """Make `fd` (which stays ours) known to QEMU as /dev/fdset/<fdset>."""
        await self._hand_over(fd, "add-fd", {"fdset-id": fdset})

    async def add_fds(self, fds: Mapping[int, int]) -> None:
        """`add_fd` for many, by fdset, of which not every single one is waited for: a hundred in 20 ms, not 150.

        QEMU takes them one by one: it reads no further before a command is carried out (see _Client). One that it
        refuses is missed when the file is opened. Raises MachineError.
        """
        many = list(fds.items())
        for start in range(0, len(many), _FDS_AT_ONCE):
            *most, (last, fd) = many[start : start + _FDS_AT_ONCE]
            async with self._fd_in_hand:
                for fdset, each in most:
                    self._send_fd(each, "add-fd", {"fdset-id": fdset})
            await self.add_fd(last, fd)

    async def remove_fdset(self, fdset: int) -> None:
        """Let QEMU close the files of a set once nothing uses them."""
        await self.execute("remove-fd", {"fdset-id": fdset})

    async def get_fd(self, name: str, fd: int) -> None:
        """Make `fd` (which stays ours) known to QEMU by `name`, until a command takes it."""
        await self._hand_over(fd, "getfd", {"fdname": name})

    async def close_fd(self, name: str) -> None:
        """Let QEMU close a named descriptor that no command took."""
        await self.execute("closefd", {"fdname": name})

    def on_event(self, handler: Callable[[Event], None]) -> Callable[[], None]:
        """Call `handler` with every event from now on; answers what ends that."""
        self._handlers.append(handler)

        def remove() -> None:
            if handler in self._handlers:
                self._handlers.remove(handler)

        return remove

    async def drain(self, timeout_s: float) -> None:
        """After QEMU's exit: read what it still said, and hand out every event. Never raises for a lost connection."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._client.runstate is Runstate.RUNNING:
                    await self._client.runstate_changed()
        for message in self._events.clear():
            self._tell(message)

    async def close(self, timeout_s: float) -> None:
        """Hang up. Does nothing if that was done or the connection never came about: `open` cleans up itself."""
        if self._dispatcher is None:
            return
        dispatcher, self._dispatcher = self._dispatcher, None
        dispatcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await dispatcher
        # The library reports here how the connection was lost: known, and told by the process' exit already.
        with contextlib.suppress(QMPError, OSError, EOFError, TimeoutError, *_UNREADABLE):
            async with asyncio.timeout(timeout_s):
                await self._client.disconnect()

    async def _hand_over(self, fd: int, command: str, arguments: Mapping[str, object]) -> None:
        async with self._fd_in_hand:
            try:
                self._client.send_fd_scm(fd)
            except (QMPError, OSError) as error:
                raise MachineError(f"QEMU went away before {command}") from error
            await self.execute(command, arguments)

    def _send_fd(self, fd: int, command: str, arguments: Mapping[str, object]) -> None:
        """A command and its descriptor in one message; its answer, by an id that the client has not, is dropped."""
        text = json.dumps({"execute": command, "arguments": arguments, "id": "unheard"}, separators=(",", ":")).encode()
        try:
            assert self._socket is not None, "the connection is open"
            sent = self._socket.sendmsg(
                [text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))], socket.MSG_NOSIGNAL
            )
        except OSError as error:
            raise MachineError(f"QEMU went away before {command}") from error
        if sent != len(text):
            raise MachineError(f"QEMU does not read its commands: {sent} of {len(text)} bytes of {command} were sent")

    async def _dispatch(self) -> None:
        async for message in self._events:
            self._tell(message)

    def _tell(self, message: Message) -> None:
        data = message.get("data")
        event = Event(str(message["event"]), data if isinstance(data, dict) else {})
        for handler in list(self._handlers):
            handler(event)


def _describe(command: str, arguments: Mapping[str, object] | None) -> str:
    """`device_add layer0`: the command and what it was about."""
    for key in ("id", "node-name", "fdname", "fdset-id", "qom-type"):
        if arguments and key in arguments:
            return f"{command} {arguments[key]}"
    return command
