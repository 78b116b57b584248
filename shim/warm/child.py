"""What a fork of the service does until it is the shim's daemon.

It has one connection, to one `start`: it reads what that asks for, within a second, looks who it
is, becomes like it (caller.py), makes the shim (shim/launch.py), and waits for the word to go on. A
`start` that hangs up before has made the shim itself, or was killed: then everything is undone.
"""

import os
import select
import signal
import socket
import struct
import time
from typing import Final

from shim.arguments import Arguments, parse
from shim.launch import Prepared, answer, become_daemon, detach, prepare
from shim.log import Logger
from shim.title import show
from shim.warm import holdings, message
from shim.warm.caller import Caller, become_like, look
from shim.warm.code import Code
from shim.warm.holdings import Holdings
from shim.warm.message import MessageError

# Exit statuses, for the service's ears: served to the end or not at all, and of other code than the service.
FAILED: Final = 1
OTHER_CODE: Final = 75
_REQUEST_S: Final = 1.0
# From READY to GO `start` does one write.
_GO_S: Final = 10.0
_SEND_S: Final = 1.0


def serve(connection: socket.socket, code: Code, ours: dict[str, str], held: Holdings, log: Logger) -> int:
    """Be the shim that the `start` behind `connection` wants. Returns, with the exit status, only where that fails.

    `ours` is the service's standing. The caller has closed everything else of the service's.
    """
    try:
        _send(connection, message.TAKEN)
        request = _receive_request(connection)
        caller = look(_peer(connection))
        _check_is_there(connection)
    except (MessageError, OSError, KeyError) as error:
        log.warning("a connection that asks for nothing", error=str(error))
        return FAILED
    if other := code.differs(os.fsdecode(request.packages), caller.program):
        return _refuse(connection, other, log, status=OTHER_CODE)
    if elsewhere := caller.differs_from(ours):
        return _refuse(connection, elsewhere, log, status=FAILED)
    try:
        become_like(caller, request.environment)
    except (OSError, ValueError) as error:
        return _refuse(connection, str(error), log, status=FAILED)
    holdings.inherit(held)
    detach()
    _shim(connection, parse([os.fsdecode(word) for word in request.words]), request, caller)
    return FAILED


class _Request:
    def __init__(self, packages: bytes, words: bytes, environment: bytes, stdin: bytes) -> None:
        self.packages = packages
        self.words = message.parted(words)
        self.environment = message.parted(environment)
        self.stdin = stdin


def _receive_request(connection: socket.socket) -> _Request:
    kind, *rest = message.receive(connection, time.monotonic() + _REQUEST_S)
    if kind != message.REQUEST or len(rest) != 4:
        raise MessageError(f"{kind!r} with {len(rest)} strings is no request of ours")
    return _Request(*rest)


def _refuse(connection: socket.socket, reason: str, log: Logger, *, status: int) -> int:
    log.warning("start makes its shim itself", reason=reason)
    try:
        _send(connection, message.REFUSED, os.fsencode(reason))
    except MessageError as error:
        log.debug("start has not heard of it", error=str(error))
    return status


def _shim(connection: socket.socket, arguments: Arguments, request: _Request, caller: Caller) -> None:
    """Make the shim and be it; return only where that fails, with nothing left."""
    try:
        prepared = prepare(arguments, request.stdin, lambda: _check_is_there(connection))
    except MessageError:
        return
    except Exception as error:  # noqa: BLE001 - whatever it is, it is for the user
        _send(connection, message.FAILED, _line(error))
        return
    try:
        prepared.sign(os.getpid())
        show(caller.command_line, caller.environment, caller.name)
        _await_go(connection, prepared)
    except Exception as error:  # noqa: BLE001 - see above
        prepared.undo()
        if not isinstance(error, MessageError):
            _send(connection, message.FAILED, _line(error))
        return
    connection.close()
    become_daemon(prepared)


def _await_go(connection: socket.socket, prepared: Prepared) -> None:
    _send(connection, message.READY, answer(prepared.socket_path, newest=prepared.newest).encode())
    said = message.receive(connection, time.monotonic() + _GO_S)
    if said != [message.GO]:
        raise MessageError(f"{said!r} instead of the word to go")


def _line(error: BaseException) -> bytes:
    return os.fsencode(str(error) or type(error).__name__)


def _check_is_there(connection: socket.socket) -> None:
    """Raise MessageError where `start` has hung up."""
    poller = select.poll()
    poller.register(connection, select.POLLRDHUP)
    if poller.poll(0):
        raise MessageError("it has hung up")


def _send(connection: socket.socket, *strings: bytes) -> None:
    message.send(connection, message.pack(*strings), time.monotonic() + _SEND_S)


def _peer(connection: socket.socket) -> int:
    pid, _uid, _gid = credentials(connection)
    return pid


def credentials(connection: socket.socket) -> tuple[int, int, int]:
    """Process, user and group of the other end when it connected (unix(7), SO_PEERCRED)."""
    pid, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid, gid


def reset_signals() -> None:
    """Have the dispositions of an interpreter that has just begun, and nothing blocked."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
