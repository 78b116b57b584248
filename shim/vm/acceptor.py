"""Connections that a guest opens to its shim, told apart by their first 16 bytes.

Zeros: the control connection, of which there is exactly one in the life of a machine,
and before any other. Anything else: the token of a stream that the shim has announced
to the guest and expects. All else is closed without an answer: a connection that knows
no token, a second control connection, a dialler that does not say within the deadline
what it is.

Whether a connection comes from this machine's guest at all is for `admit` to say, which
looks at the peer, not at what it sends. Inside the guest any process may dial; only
vminitd knows the tokens, and it dials for control before it runs anything else.

A stalled dialler holds one file descriptor until its deadline, and no more than
PENDING_LIMIT may be waiting; the accept loop itself never waits for any of them.
"""

import asyncio
import errno
import functools
import socket
from collections.abc import Callable
from typing import Final

import structlog

from shim.accepting import accept
from shim.errors import HostError, MachineError, StateError

TOKEN_BYTES: Final = 16
CONTROL_TOKEN: Final = bytes(TOKEN_BYTES)
# Diallers that have not said what they are; those beyond are closed at once.
PENDING_LIMIT: Final = 128
# How often a guest's misbehaviour is logged.
COMPLAINT_LIMIT: Final = 20

_Recipient = asyncio.Future[socket.socket]

_log = structlog.get_logger(__name__)


class Acceptor:
    """Takes a guest's connections from one listening socket, which belongs to it from now on."""

    def __init__(
        self, listener: socket.socket, *, admit: Callable[[socket.socket], bool], token_timeout_s: float
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._admit = admit
        self._token_timeout_s = token_timeout_s
        self._loop = asyncio.get_running_loop()
        self._control: asyncio.Future[socket.socket] = self._loop.create_future()
        self._control_given = False
        self._complaints = 0
        self._expected: dict[bytes, asyncio.Future[socket.socket]] = {}
        self._pending: set[asyncio.Task[_Recipient | None]] = set()
        self._closed = False
        self._accepting = asyncio.create_task(self._accept_all(), name="vsock-accept")

    async def control(self, timeout_s: float) -> socket.socket:
        """Wait for the control connection. Whoever gets it owns it; it is given out once.

        Raises MachineError when the deadline passes or the acceptor is closed, StateError the second time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                connection = await asyncio.shield(self._control)
        except TimeoutError:
            raise MachineError(f"the guest did not call within {timeout_s:g} s") from None
        if self._control_given:
            raise StateError("the control connection was given out already")
        self._control_given = True
        return connection

    def expect(self, token: bytes) -> "asyncio.Future[socket.socket]":
        """Announce a stream; the answer is done with its connected non-blocking socket, owned by the caller.

        Cancelling it withdraws the token. It fails with MachineError when the acceptor
        is closed. Raises StateError for a token that is not 16 bytes, that is all zeros,
        or that is expected already.
        """
        if len(token) != TOKEN_BYTES or token == CONTROL_TOKEN:
            raise StateError(f"a stream's token must be {TOKEN_BYTES} bytes and not all zeros: {token.hex()}")
        if token in self._expected:
            raise StateError("this stream is expected already")
        if self._closed:
            raise MachineError("the virtual machine is gone: it opens no more streams")
        future: asyncio.Future[socket.socket] = self._loop.create_future()
        self._expected[token] = future
        future.add_done_callback(lambda _: self._expected.pop(token, None))
        return future

    async def close(self) -> None:
        """Stop listening and give up on what is pending. Sockets that were handed out are not touched."""
        if self._closed:
            return
        self._closed = True
        tasks = [self._accepting, *self._pending]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listener.close()
        if self._control.done() and not self._control_given and self._control.exception() is None:
            self._control.result().close()
        gone = MachineError("the virtual machine is gone")
        for future in [self._control, *self._expected.values()]:
            if not future.done():
                future.set_exception(gone)
                future.exception()  # whoever does not wait for it need not hear of it

    async def _accept_all(self) -> None:
        while True:
            try:
                connection = await accept(self._listener, self._complain)
            except OSError as error:
                self._give_up(error)
                return
            if not self._admit(connection) or len(self._pending) >= PENDING_LIMIT:
                connection.close()
                continue
            task = asyncio.create_task(self._identify(connection), name="vsock-identify")
            self._pending.add(task)
            task.add_done_callback(functools.partial(self._settle, connection))

    def _settle(self, connection: socket.socket, task: "asyncio.Task[_Recipient | None]") -> None:
        """Hand a connection to its recipient, if the dialler named one; else, and after a cancel, close it."""
        self._pending.discard(task)
        recipient = None if task.cancelled() else task.result()
        if recipient is None or recipient.done():
            connection.close()
        else:
            recipient.set_result(connection)

    def _complain(self, what: str) -> None:
        """Log what a guest does wrong; only so often, because it may do it as often as it likes."""
        if self._complaints < COMPLAINT_LIMIT:
            self._complaints += 1
            _log.warning(f"guest: {what}")

    def _give_up(self, error: OSError) -> None:
        """No more will come: whoever waits for one hears of it."""
        failure = HostError(f"connections of the guest cannot be accepted: {error.strerror}")
        _log.error(failure.message)
        for future in [self._control, *self._expected.values()]:
            if not future.done():
                future.set_exception(failure)
                future.exception()

    async def _identify(self, connection: socket.socket) -> "_Recipient | None":
        """Read the token and answer who waits for it."""
        try:
            async with asyncio.timeout(self._token_timeout_s):
                return self._recipient(await self._read_token(connection))
        except TimeoutError:
            self._complain(f"a connection said nothing for {self._token_timeout_s:g} s")
        except OSError as error:
            self._complain(f"a connection was lost: {error.strerror}")
        return None

    async def _read_token(self, connection: socket.socket) -> bytes:
        token = b""
        while len(token) < TOKEN_BYTES:
            piece = await self._loop.sock_recv(connection, TOKEN_BYTES - len(token))
            if not piece:
                raise ConnectionResetError(errno.ECONNRESET, "closed before its token was complete")
            token += piece
        return token

    def _recipient(self, token: bytes) -> "_Recipient | None":
        """Who waits for a connection with this token; None if nobody does."""
        if token == CONTROL_TOKEN:
            if self._control.done():
                self._complain("a second control connection was turned away")
                return None
            return self._control
        future = self._expected.get(token)
        if future is None or future.done() or not self._control.done():
            self._complain("a connection with an unknown token was turned away")
            return None
        return future
