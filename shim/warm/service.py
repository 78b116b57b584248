"""`qemubox service`: the process that shims are forked from.

One thread, no event loop: a fork has only the thread that forks, and would inherit every lock
that another one holds. The loop accepts a connection, forks, closes it: whatever the other end
does or leaves undone is its child's to wait for, for a second at most. The service reads nothing
from anybody, so nobody can stall it, and its only wait is for the next connection or signal.

Signals: SIGTERM and SIGINT end it, and its children live on. SIGHUP makes it look for new code,
and refresh what it holds for its children. It can be killed at any moment: what it has is a
socket's name and a lock, and the next one takes both over.

When its code is no longer what lies on the disk it executes itself anew, with its listening
socket, so that no `start` finds nobody: those that come meanwhile wait in the socket's queue.
"""

import contextlib
import gc
import importlib
import os
import pkgutil
import select
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final

import shim
from shim.claim import LOCK_NAME, ClaimTimeout, claim, make_directory
from shim.errors import HostError
from shim.log import Logger, open_service_log
from shim.warm import child, message
from shim.warm.caller import standing
from shim.warm.code import Code, interpreter
from shim.warm.holdings import Holdings

# What no shim has: it need not even be installed, or belongs to the administrator's command alone (4 MiB, 2026-11).
_NOT_OURS: Final = ("shim.tracing.otel", "shim.check", "shim.cli", "shim.commit", "shim.containerd")
# What modules of the standard library import only when they are used.
_FURTHER_MODULES: Final = ("concurrent.futures.thread", "ctypes", "hashlib", "json", "tomllib", "traceback")
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_BACKLOG: Final = 128
_LOCK_S: Final = 1.0
# sd_listen_fds(3): the first descriptor that is handed over at an exec.
_FIRST_FD: Final = 3


def run(link: str, refresh: Callable[[Holdings, Logger], None] = lambda _held, _log: None) -> int:
    """Serve until SIGTERM; the answer is the exit status.

    `link` leads to the directory of our packages; `refresh` fills what is held for the
    children, and is called before the first of them and after SIGHUP. Raises HostError
    where the socket cannot be had.
    """
    gc.disable()
    log = open_service_log()
    path = os.environ.get(message.SOCKET_VARIABLE) or message.SOCKET_PATH
    listener = _handed_over(path)
    _close_others(listener)
    _import_everything()
    lock_fd = _claim(path)
    service = Service(listener or _listen(path), lock_fd, Code(link), log)
    refresh(service.held, log)
    # What is here now stays: no collection in a child looks at it, or it would write to every page of it.
    gc.collect()
    gc.freeze()
    _notify(b"READY=1")
    log.info("serving", socket=path)
    while service.wait():
        if reason := service.stale():
            log.info("executing anew", reason=reason)
            service.execute_anew()
        if service.refresh:
            service.refresh = False
            refresh(service.held, log)
            gc.freeze()
    Path(path).unlink(missing_ok=True)
    Path(path).with_name(LOCK_NAME).unlink(missing_ok=True)
    log.info("told to end")
    return 0


class Service:
    """The listening socket, and the signals that have come."""

    def __init__(self, listener: socket.socket, lock_fd: int, code: Code, log: Logger) -> None:
        self.held = Holdings()
        # Whether SIGHUP wants what is held looked at again.
        self.refresh = False
        self._listener = listener
        self._lock_fd = lock_fd
        self._code = code
        self._log = log
        self._standing = standing("self")
        self._doubtful = False
        self._signals: set[int] = set()
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._wake)
        for number in _SIGNALS:
            signal.signal(number, self._note)
        self._poller = select.poll()
        self._poller.register(listener, select.POLLIN)
        self._poller.register(self._woken, select.POLLIN)
        self._signals.add(signal.SIGCHLD)  # what ended while we executed anew

    def wait(self) -> bool:
        """Do what there is to do, after waiting until there is something; False at the end."""
        for fd, _events in self._poller.poll():
            if fd == self._woken:
                os.read(self._woken, 4096)
            else:
                self._accept()
        signals, self._signals = self._signals, set()
        if signal.SIGCHLD in signals:
            self._reap()
        if signal.SIGHUP in signals:
            self._doubtful = self.refresh = True
        return not signals & {signal.SIGTERM, signal.SIGINT}

    def stale(self) -> str:
        """Why we are not of the code that lies on the disk; looked for where there is a reason to doubt."""
        doubtful, self._doubtful = self._doubtful, False
        return self._code.changed() if doubtful else ""

    def execute_anew(self) -> None:
        """Become a new service, of the code that there is now, with our listening socket. Raises OSError."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the default would end us before the new one has its own
        if self._listener.fileno() != _FIRST_FD:
            os.dup2(self._listener.fileno(), _FIRST_FD)
        os.set_inheritable(_FIRST_FD, True)
        os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
        os.execv(interpreter(), sys.orig_argv)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._signals.add(number)

    def _accept(self) -> None:
        try:
            connection, _address = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        with connection:
            _pid, uid, _gid = child.credentials(connection)
            if uid != 0:
                self._log.warning("a connection of somebody who is not root", uid=uid)
                return
            self._fork(connection)

    def _fork(self, connection: socket.socket) -> None:
        """Blocked meanwhile: a signal that is for us must not find the child with our handlers."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            if os.fork() == 0:
                self._become_child(connection)
        except OSError as error:
            self._log.error("cannot fork", error=str(error))
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _become_child(self, connection: socket.socket) -> None:
        """Let go of all that is the service's; never back."""
        status = child.FAILED
        try:
            child.reset_signals()
            self._listener.close()
            for fd in (self._lock_fd, self._woken, self._wake):
                os.close(fd)
            gc.enable()
            status = child.serve(connection, self._code, self._standing, self.held, self._log)
        except Exception:  # noqa: BLE001 - nobody is above us to hear of it
            self._log.exception("a child failed")
        finally:
            os._exit(status)

    def _reap(self) -> None:
        """Collect the children that have ended: those that were no use, and shims."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if os.waitstatus_to_exitcode(status) == child.OTHER_CODE:
                    self._doubtful = True


def _import_everything() -> None:
    """All that a shim comes to import in its life, at its start or later: our own modules, and what those need."""
    modules = [module.name for module in pkgutil.iter_modules(shim.__path__, "shim.")]
    for name in modules:
        if name not in _NOT_OURS:
            module = importlib.import_module(name)
            modules += [below.name for below in pkgutil.iter_modules(getattr(module, "__path__", ()), f"{name}.")]
    for name in _FURTHER_MODULES:
        importlib.import_module(name)


def _handed_over(path: str) -> socket.socket | None:
    """The listening socket that the service before us has executed us with (sd_listen_fds(3))."""
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    if (pid, count) != (str(os.getpid()), "1"):
        return None
    listener = socket.socket(fileno=_FIRST_FD)
    os.set_inheritable(_FIRST_FD, False)
    if listener.getsockname() != path:
        raise HostError(f"the socket that was handed over listens at {listener.getsockname()}, not at {path}")
    return listener


def _close_others(listener: socket.socket | None) -> None:
    """Close what else we were started with: our children would keep it open as long as they live."""
    keep = {0, 1, 2, listener.fileno() if listener else -1}
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd not in keep:
            with contextlib.suppress(OSError):  # the one of the listing itself
                os.close(fd)


def _claim(path: str) -> int:
    directory = os.path.dirname(path)
    make_directory(directory)
    try:
        return claim(directory, deadline_s=_LOCK_S)
    except ClaimTimeout as timeout:
        raise HostError(
            f"a service serves at {path} already (pid {timeout.holder})", hint="systemctl restart qemubox, or end it"
        ) from None


def _listen(path: str) -> socket.socket:
    """A listening socket that only root may connect to. Raises HostError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    mask = os.umask(0o177)
    try:
        Path(path).unlink(missing_ok=True)  # nobody can be listening there: the lock is ours
        listener.bind(path)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise HostError(f"cannot listen at {path}: {error.strerror or error}") from error
    finally:
        os.umask(mask)
    return listener


def _notify(state: bytes) -> None:
    """Tell systemd, where it started us and wants to know (sd_notify(3))."""
    address = os.environ.pop("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.sendto(state, "\0" + address[1:] if address.startswith("@") else address)
