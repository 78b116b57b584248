"""Random things that a container does to its files, for hypothesis: each a value, carried out in a directory."""

import contextlib
import os
import shutil
import socket
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from hypothesis import strategies as st

# Few, so that they meet; some are no UTF-8, one is as long as can be.
NAMES: Final = (b"a", b"b", b"c.d", b"\xff\xfe", "ä".encode(), b"new\nline", b"n" * 255, b"-", b"a b")
IDS: Final = (0, 1, 1000, 65536, 4_000_000_000)
TIMES_NS: Final = (0, 1, -5, 1_700_000_000_123_456_789, 5_000_000_000_000_000_001)
SIZES: Final = (0, 1, 60, 4095, 4096, 4097, 300_000)


@dataclass(frozen=True, slots=True)
class Action:
    """What is done, to a name in the directory that comes `where`, and a number that says how."""

    what: str
    where: int
    name: bytes
    number: int


def actions(*, raw: bool) -> st.SearchStrategy[list[Action]]:
    """Lists of them. `raw`: also what only overlayfs itself does, whiteouts and opaque directories."""
    words = [word for word in _DO if raw or word not in ("whiteout", "opaque")]
    one = st.builds(
        Action, st.sampled_from(words), st.integers(0, 1 << 16), st.sampled_from(NAMES), st.integers(0, 1 << 16)
    )
    return st.lists(one, max_size=30)


def perform(root: Path, todo: list[Action]) -> None:
    """Do all of it; what cannot be done (the name is there, or not) is left out, as by a program that goes on."""
    for action in todo:
        directories = [os.fsencode(root)]
        for at, below, _ in os.walk(os.fsencode(root)):
            below.sort()
            directories += [os.path.join(at, each) for each in below if not os.path.islink(os.path.join(at, each))]
        directory = directories[action.where % len(directories)]
        path = os.path.join(directory, action.name)
        other = os.path.join(directories[action.number % len(directories)], NAMES[action.number % len(NAMES)])
        with contextlib.suppress(OSError, shutil.Error):
            _DO[action.what](path, action.number, other)


def _open(path: bytes) -> BinaryIO:
    """Never a device or a FIFO, nor by a symbolic link."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return open(fd, "r+b")
    os.close(fd)
    raise FileExistsError


def _file(path: bytes, number: int, _: bytes) -> None:
    with _open(path) as file:
        file.write(number.to_bytes(4, "little") * (SIZES[number % len(SIZES)] // 4 + 1))
        file.truncate(SIZES[number % len(SIZES)])


def _sparse(path: bytes, number: int, _: bytes) -> None:
    with _open(path) as file:
        for block in range(number % 40):
            os.pwrite(file.fileno(), b"x" * 4096, block * 8192 + (number % 3) * 4096)
        os.ftruncate(file.fileno(), (number % 50) * 8192 + number % 5000)


def _allocated(path: bytes, number: int, _: bytes) -> None:
    with _open(path) as file:
        os.posix_fallocate(file.fileno(), 0, 4096 * (number % 20 + 1))


def _change(path: bytes, number: int, _: bytes) -> None:
    """Without another size, or time."""
    status = os.stat(path, follow_symlinks=False)
    if stat.S_ISREG(status.st_mode):
        with _open(path) as file:
            file.write(b"changed %d" % number)
            file.truncate(status.st_size)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _remove(path: bytes, _: int, __: bytes) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _acl(path: bytes, number: int, _: bytes) -> None:
    """An access list as acl(5) stores it: owner, a user, group, mask, others."""
    name = "system.posix_acl_default" if number % 2 and os.path.isdir(path) else "system.posix_acl_access"
    entries = ((1, 7, -1), (2, number % 8, IDS[number % len(IDS)]), (4, 5, -1), (16, 7, -1), (32, number % 4, -1))
    packed = b"".join(struct.pack("<HHI", tag, rights, who & 0xFFFFFFFF) for tag, rights, who in entries)
    if not os.path.islink(path):
        os.setxattr(path, name, struct.pack("<I", 2) + packed)


def _xattr(path: bytes, number: int, _: bytes) -> None:
    name = ("user.x", "user.\udcff", "trusted.y", "security.capability")[number % 4]
    value = bytes(number % 90)
    if name == "security.capability":  # capability.h, revision 2
        value = struct.pack("<IIIII", 0x02000001, number & 0xFFF, 0, 0, 0)
    os.setxattr(path, name, value, follow_symlinks=False)


def _no_xattr(path: bytes, _: int, __: bytes) -> None:
    for name in os.listxattr(path, follow_symlinks=False):
        if not name.startswith("trusted.overlay."):
            os.removexattr(path, name, follow_symlinks=False)


def _chmod(path: bytes, number: int, _: bytes) -> None:
    if not os.path.islink(path):
        os.chmod(path, number & 0o7777)


def _socket(path: bytes, _: int, __: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)


def _device(path: bytes, number: int, _: bytes) -> None:
    os.mknod(path, (stat.S_IFCHR, stat.S_IFBLK)[number % 2] | 0o640, os.makedev(number % 4000 + 1, number << 3))


def _opaque(path: bytes, _: int, __: bytes) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        os.setxattr(path, "trusted.overlay.opaque", b"y")


_DO: Final[dict[str, Callable[[bytes, int, bytes], None]]] = {
    "mkdir": lambda path, number, _: os.mkdir(path, 0o700 | number & 0o77),
    "mkdir too": lambda path, number, _: os.mkdir(path, 0o755),
    "file": _file,
    "sparse": _sparse,
    "allocated": _allocated,
    "change": _change,
    "symlink": lambda path, number, other: os.symlink(other if number % 2 else b"/etc/passwd", path),
    "link": lambda path, _, other: os.link(path, other, follow_symlinks=False),
    "link too": lambda path, _, other: os.link(other, path, follow_symlinks=False),
    "fifo": lambda path, *_: os.mkfifo(path, 0o600),
    "socket": _socket,
    "device": _device,
    "whiteout": lambda path, *_: os.mknod(path, stat.S_IFCHR, 0),
    "opaque": _opaque,
    "remove": _remove,
    "remove too": _remove,
    "rename": lambda path, _, other: os.rename(path, other),
    "owner": lambda path, number, _: os.chown(path, IDS[number % 5], IDS[number // 5 % 5], follow_symlinks=False),
    "mode": _chmod,
    "time": lambda path, number, _: os.utime(path, ns=(0, TIMES_NS[number % 5]), follow_symlinks=False),
    "xattr": _xattr,
    "no xattr": _no_xattr,
    "acl": _acl,
}
