"""vsock by a daemon: rust-vmm's `vhost-device-vsock`, one per machine, for hosts without /dev/vhost-vsock.

The daemon serves one vhost-user connection, ours, which we open and hand to QEMU as a
descriptor; and for a guest's connection to port P of the host it connects to the unix
socket `<uds-path>_P`, where we listen. It runs as the unprivileged user in a directory of
its own (0700), dies with us, and only it may connect to us: the peer's pid is checked,
because daemons of other machines run as the same user. For the same reason whatever is
done by name in there is done while the directory is still root's, and who listens where
we connect is looked at: another's process could put a link in the place of a name.

Nothing is dialled from host to guest: a `CONNECT` before the guest's driver is up can
wedge the daemon for good (measured: one start in five).
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from shim.errors import HostError, MachineError, MissingPartError
from shim.inotify import IN_CREATE, IN_MOVED_TO, Watch, appears
from shim.journal import Journal
from shim.reclaim import remove
from shim.vm.acceptor import Acceptor
from shim.vm.process import Credentials, Process, spawn
from shim.vm.vsock import TOKEN_TIMEOUT_S, UserVsockDevice, random_cid

# Between the daemon's bind and its listen, some microseconds, a connection is refused; nothing tells of the listen.
_LISTEN_PAUSE_S: Final = 0.001

# How much a guest may have under way on one connection, and so its largest packet. The daemon
# (0.3.0) takes a packet of one piece only and drops others without a word; Linux 6.12 cuts
# one of more than 32 KiB in pieces, and with the daemon's default of 64 KiB a guest's large
# write stalled for ever. 16 KiB are always one piece; 20 MiB arrive in 0.5 s (TCG, 2026-11).
# The daemon's ring needs a power of two.
_BUFFER_BYTES: Final = 16384


class UserVsock:
    """vsock.VsockBackend by vhost-device-vsock. `directory` must not exist; it is made here and removed by `close`."""

    shared_memory = True

    def __init__(self, *, daemon: Path, directory: Path, credentials: Credentials, journal: Journal) -> None:
        self._daemon = daemon
        self._directory = directory
        self._credentials = credentials
        self._journal = journal
        self._process: Process | None = None
        self._vhost_user: socket.socket | None = None
        self._acceptor: Acceptor | None = None

    async def prepare(self, timeout_s: float) -> UserVsockDevice:
        """See VsockBackend."""
        if not os.access(self._daemon, os.X_OK):
            raise MissingPartError(
                f"{self._daemon}: no such program", hint="install vhost-device-vsock, or name it as vsock.daemon"
            )
        cid = random_cid()
        listener = self._make_directory(cid)
        self._acceptor = Acceptor(listener, admit=self._is_daemon, token_timeout_s=TOKEN_TIMEOUT_S)
        with Watch() as watch:
            watch.add(self._directory, IN_CREATE | IN_MOVED_TO)
            self._process = self._start_daemon(cid)
            try:
                async with asyncio.timeout(timeout_s):
                    self._vhost_user = await self._connect(watch, self._process)
            except TimeoutError:
                raise MachineError(f"{self._daemon} was not ready within {timeout_s:g} s") from None
        return UserVsockDevice(cid, self._vhost_user.fileno())

    def on_lost(self, handler: Callable[[str], None]) -> None:
        """See VsockBackend: called with how the daemon ended."""
        if self._process is None:
            raise MachineError("vsock is not prepared yet")
        process = self._process
        process.exited.add_done_callback(lambda _: handler(process.failure()))

    def device_added(self) -> None:
        """See VsockBackend."""
        if self._vhost_user is not None:
            self._vhost_user.close()
            self._vhost_user = None

    async def control(self, timeout_s: float) -> socket.socket:
        """See VsockBackend."""
        return await self._prepared().control(timeout_s)

    def expect(self, token: bytes) -> "asyncio.Future[socket.socket]":
        """See VsockBackend."""
        return self._prepared().expect(token)

    async def close(self, timeout_s: float) -> None:
        """See VsockBackend. Raises MachineError for a daemon that cannot be killed, or what cannot be removed."""
        self.device_added()
        if self._acceptor is not None:
            await self._acceptor.close()
        if self._process is not None:
            self._process.kill()
            try:
                async with asyncio.timeout(timeout_s):
                    await asyncio.shield(self._process.exited)
            except TimeoutError:
                raise MachineError(f"{self._process.name} did not end within {timeout_s:g} s of SIGKILL") from None
        self._remove_directory()

    @property
    def _socket(self) -> Path:
        return self._directory / "vhost"

    @property
    def _uds(self) -> Path:
        return self._directory / "host"

    def _prepared(self) -> Acceptor:
        if self._acceptor is None:
            raise MachineError("vsock is not prepared yet")
        return self._acceptor

    def _make_directory(self, cid: int) -> socket.socket:
        """The directory, with our listening socket in it; it becomes the user's when that is all there."""
        self._journal.record("path", path=str(self._directory))
        try:
            self._directory.mkdir(mode=0o700)
        except OSError as error:
            raise HostError(f"{self._directory} cannot be made: {error.strerror}") from error
        listener = self._listen(cid)
        try:
            os.chown(self._directory, self._credentials.uid, self._credentials.gid)
        except OSError as error:
            listener.close()
            raise HostError(f"{self._directory} cannot be given away: {error.strerror}") from error
        return listener

    def _remove_directory(self) -> None:
        try:
            remove(str(self._directory))
        except OSError as error:  # the journal knows it
            raise MachineError(f"{self._directory} cannot be removed: {error.strerror}") from error

    def _start_daemon(self, cid: int) -> Process:
        device = f"guest-cid={cid},socket={self._socket},uds-path={self._uds},tx-buffer-size={_BUFFER_BYTES}"
        return spawn(
            [str(self._daemon), "--vm", device],
            name="vhost-device-vsock",
            marker=str(self._socket),
            credentials=self._credentials,
            journal=self._journal,
            pass_fds=(),
        )

    def _listen(self, cid: int) -> socket.socket:
        """Listen where the daemon brings the guest's connections to port `cid`. The directory is still root's."""
        path = self._directory / f"{self._uds.name}_{cid}"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(path))
            os.chown(path, self._credentials.uid, self._credentials.gid)
            path.chmod(0o600)
            listener.listen(64)
        except OSError as error:
            listener.close()
            raise HostError(f"{path} cannot be listened on: {error.strerror}") from error
        return listener

    def _is_daemon(self, peer: socket.socket) -> bool:
        """Whether the peer, which called or listens, is our daemon (unix(7), SO_PEERCRED: pid, uid, gid)."""
        pid, _, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return self._process is not None and pid == self._process.pid

    async def _connect(self, watch: Watch, process: Process) -> socket.socket:
        """Wait until the daemon listens, and connect. The caller sets the deadline."""
        appeared = asyncio.ensure_future(appears(self._socket, watch))
        try:
            await asyncio.wait((appeared, process.exited), return_when=asyncio.FIRST_COMPLETED)
        finally:
            appeared.cancel()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            while True:
                if process.exited.done():
                    raise MachineError(process.failure())
                with contextlib.suppress(ConnectionRefusedError, FileNotFoundError):
                    sock.connect(str(self._socket))
                    if not self._is_daemon(sock):
                        raise MachineError(f"{self._socket}: it is not {self._daemon} that listens there")
                    return sock
                await asyncio.sleep(_LISTEN_PAUSE_S)
        except BaseException:
            sock.close()
            raise
