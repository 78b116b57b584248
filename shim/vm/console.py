"""What the guest prints on its serial console, kept in a file of bounded size.

QEMU writes to a socket and we copy to the file, so QEMU needs no right to any file,
and the guest cannot fill the disk. The file is a pair: FILE, and FILE.1 with what came
before; when FILE reaches half of the limit it takes the place of FILE.1. At least the
last half of the limit is always there.

QEMU is never blocked: what arrives is read at once, whether it can be written or not.
A write error (a full file system) makes the file end there; the tail for messages is
kept in memory and is not affected. The file lies on a tmpfs, so writing it on the loop
costs a copy and no wait. Root may look on, and type, by a socket (offered.py).
"""

import asyncio
import os
import re
import socket
from pathlib import Path
from typing import Final

from shim.vm.offered import Offered

# What is kept in memory for error messages.
TAIL_LIMIT: Final = 16384
LINE_LIMIT: Final = 400
# What a kernel says first of all when it panics (kernel/panic.c).
PANIC: Final = "Kernel panic - not syncing"
# Terminal control sequences (ECMA-48), which the firmware writes.
_ESCAPE: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|c)")


class Console:
    """The guest's console. `child` is QEMU's end: pass it on, then `release_child`."""

    def __init__(self, path: Path, limit_kib: int) -> None:
        self.path = path
        self._half_limit = limit_kib * 512
        self._loop = asyncio.get_running_loop()
        self._ours, self.child = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._ours.setblocking(False)
        self._tail = bytearray()
        self._fd = -1
        self._size = 0
        self._write_error = ""
        self._reading = True
        self._offered: Offered | None = None
        self._awaited: tuple[bytes, asyncio.Future[None]] | None = None
        self._open()
        self._loop.add_reader(self._ours, self._on_readable)

    def release_child(self) -> None:
        """Close our copy of QEMU's end, so that QEMU's exit is the end of the stream."""
        self.child.close()

    def tail(self, lines: int) -> list[str]:
        """The last `lines` non-empty lines, in printable characters, the beginning of each.

        Of a kernel that panicked, the last lines up to the panic, not the registers after it.
        """
        text = _ESCAPE.sub("", self._tail.decode(errors="replace"))
        found = [plain for line in text.splitlines() if (plain := "".join(filter(str.isprintable, line)).strip())]
        panic = next((number for number, line in enumerate(found) if PANIC in line), len(found))
        return [line[:LINE_LIMIT] for line in found[: panic + 1][-lines:]]

    def expect(self, words: str) -> "asyncio.Future[None]":
        """Done when the guest prints `words`, or has them in its last lines already.

        One at a time; cancel it to withdraw.
        """
        printed: asyncio.Future[None] = self._loop.create_future()
        self._awaited = (words.encode(), printed)
        self._tell()
        return printed

    def offer(self, path: Path) -> None:
        """Let root take part, by a socket at `path`. Raises OSError."""
        self._offered = Offered(path, self._ours, lambda: bytes(self._tail))

    @property
    def write_error(self) -> str:
        """Why the file ends early; empty if it does not."""
        return self._write_error

    def close(self) -> None:
        """Take what has arrived, then release the socket and the file. The tail stays."""
        while self._reading and self._ours.fileno() >= 0 and self._on_readable():
            pass
        if self._offered is not None:
            self._offered.close()
            self._offered = None
        self._stop_reading()
        self._ours.close()
        self.child.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(self.path, flags, 0o600)
        except OSError as error:
            self._fd = -1
            self._write_error = f"{self.path}: {error.strerror}"
        self._size = 0

    def _on_readable(self) -> bool:
        """Take one piece; answers whether there may be more."""
        try:
            data = self._ours.recv(65536)
        except BlockingIOError:
            return False
        except OSError:  # the peer was killed with unread data of ours: the end, too
            data = b""
        if not data:
            self._stop_reading()
            return False
        self._tail += data
        del self._tail[:-TAIL_LIMIT]
        self._tell()
        self._store(data)
        if self._offered is not None:
            self._offered.tell(data)
        return True

    def _tell(self) -> None:
        if self._awaited is not None and self._awaited[0] in self._tail:
            (_, printed), self._awaited = self._awaited, None
            if not printed.done():
                printed.set_result(None)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._ours)

    def _store(self, data: bytes) -> None:
        if self._fd < 0:
            return
        try:
            while data:
                written = os.write(self._fd, data[: self._half_limit - self._size])
                self._size += written
                data = data[written:]
                if self._size >= self._half_limit:
                    self._rotate()
        except OSError as error:
            self._write_error = f"{self.path}: {error.strerror}"
            if self._fd >= 0:  # it was not the rotation that failed
                os.close(self._fd)
                self._fd = -1

    def _rotate(self) -> None:
        os.close(self._fd)
        self._fd = -1
        self.path.rename(self.path.with_name(self.path.name + ".1"))
        self._open()
        if self._fd < 0:
            raise OSError(0, self._write_error)
