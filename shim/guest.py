"""The shim's view of vminitd: its services, with deadlines, and the machine's end as an error.

A call can end in four ways: an answer, vminitd's own error (GuestError, its status kept),
a deadline (GuestError, DeadlineExceeded), or the end of the machine, which is told by
what watches QEMU and not by the connection: vsock says nothing when a machine dies.
"""

import asyncio
import socket
from collections.abc import Awaitable
from typing import Final, TypeVar

from google.protobuf.empty_pb2 import Empty

from api.archive_ttrpc import ArchiveStub
from api.changes_ttrpc import ChangesStub
from api.guest_ttrpc import ContainersStub, MachineStub, NetworkStub
from api.programs_ttrpc import ProgramsStub
from shim import deadlines, untrusted
from shim.errors import GuestError, MachineError
from shim.tracing.guest import GuestClient
from shim.vm.states import Exit
from ttrpc import Client, Code, ConnectionClosed, StatusError

_Reply = TypeVar("_Reply")

# Bytes of one answer. The longest are pages of Changes.List, and Stats: 14 small files, and a line of io.stat a disk.
ANSWER_LIMIT: Final = 256 << 10


def connect(connection: socket.socket, *, calls_before: int = 0) -> Client:
    """A client on a control connection."""
    return GuestClient(connection, calls_before=calls_before, most_data=ANSWER_LIMIT)


class Guest:
    """vminitd behind a control connection. `died` is done when the machine is gone; its result says why."""

    def __init__(self, client: Client, died: asyncio.Future[Exit]) -> None:
        self._client = client
        self._died = died
        self.machine = MachineStub(client)
        self.containers = ContainersStub(client)
        self.network = NetworkStub(client)
        self.changes = ChangesStub(client)
        self.archive = ArchiveStub(client)
        self.programs = ProgramsStub(client)

    @property
    def alive(self) -> bool:
        """Whether the machine is there."""
        return not self._died.done()

    async def call(self, reply: Awaitable[_Reply], *, deadline_s: float | None) -> _Reply:
        """Await one stub's answer; None waits for as long as the machine lives.

        Raises GuestError or MachineError.
        """
        call = asyncio.ensure_future(reply)
        try:
            await asyncio.wait((call, self._died), timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
            if call.done():
                return call.result()
            if self._died.done():
                raise self._gone()
            raise GuestError(Code.DEADLINE_EXCEEDED, f"the guest did not answer within {deadline_s:g} s")
        except ConnectionClosed as error:
            # Most often the machine's end, heard of a moment too early.
            await asyncio.wait((self._died,), timeout=deadlines.LAST_WORDS_S)
            if self._died.done():
                raise self._gone() from error
            raise MachineError("vminitd closed its connection, but the virtual machine still runs") from error
        except StatusError as error:
            raise GuestError(error.code, untrusted.plain(error.message)) from error
        finally:
            call.cancel()

    async def warm_up(self) -> None:
        """Let the machine become a template. Takes as long as its boot does."""
        await self.call(self.machine.WarmUp(Empty()), deadline_s=None)

    async def unreachable(self) -> None:
        """Return when the connection is gone and the machine is not: nothing can be asked of it any more."""
        await self._client.closed
        await asyncio.wait((self._died,), timeout=deadlines.LAST_WORDS_S)
        if self._died.done():
            await asyncio.Event().wait()

    def _gone(self) -> MachineError:
        return MachineError(f"the virtual machine is gone: {self._died.result()}")

    async def close(self) -> None:
        """Hang up."""
        await self._client.close()
