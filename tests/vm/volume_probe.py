"""What a program sees and does in a directory of the host's: run in a container, by the host's own Python.

usage: volume_probe.py DIRECTORY

Says a JSON object, which is to be the same with every runtime.
"""

import fcntl
import json
import mmap
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path

SMALL_FILES = 300


def main(directory: Path) -> None:
    """Do all of it in this order; what fails is said as the error's name."""
    said = {}
    for step in (rename, small_files, mapped, locked, attributes, access_list, sync, holes, links, unlinked, appended):
        try:
            said[step.__name__] = step(directory)
        except OSError as error:
            said[step.__name__] = f"{type(error).__name__}: {error.strerror}"
    json.dump(said, sys.stdout)


def rename(directory: Path) -> object:
    """Over a file that is there, into another directory, and of a directory."""
    (directory / "one").write_text("one")
    (directory / "two").write_text("two")
    (directory / "one").replace(directory / "two")
    (directory / "sub").mkdir()
    (directory / "two").rename(directory / "sub" / "three")
    (directory / "sub").rename(directory / "moved")
    return (directory / "moved" / "three").read_text(), sorted(os.listdir(directory / "moved"))


def small_files(directory: Path) -> object:
    """Many, listed, read and half of them removed."""
    many = directory / "many"
    many.mkdir()
    for number in range(SMALL_FILES):
        (many / str(number)).write_text(f"{number}\n")
    total = sum(int((many / name).read_text()) for name in os.listdir(many))
    for number in range(0, SMALL_FILES, 2):
        (many / str(number)).unlink()
    return total, len(os.listdir(many))


def mapped(directory: Path) -> object:
    """A shared mapping, left to the kernel to write back."""
    with (directory / "mapped").open("w+b") as file:
        file.truncate(8192)
        with mmap.mmap(file.fileno(), 8192, mmap.MAP_SHARED) as memory:
            memory[4090:4100] = b"0123456789"
    return (directory / "mapped").read_bytes()[4088:4102].decode("latin-1")


def locked(directory: Path) -> object:
    """Locks of both kinds keep another process of the container away."""
    found = []
    for lock in (fcntl.flock, fcntl.lockf):
        with (directory / "lock").open("wb") as held:
            lock(held, fcntl.LOCK_EX)
            found.append(_in_child(lambda lock=lock: _try_lock(lock, directory / "lock")))  # type: ignore[misc]
        found.append(_in_child(lambda lock=lock: _try_lock(lock, directory / "lock")))  # type: ignore[misc]
    return found


def _try_lock(lock: Callable[[object, int], object], path: Path) -> int:
    with path.open("wb") as file:
        try:
            lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 1
    return 0


def _in_child(work: Callable[[], int]) -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(work())
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def attributes(directory: Path) -> object:
    """user.* and a file's capabilities, which a change of its owner takes away."""
    path = directory / "attributes"
    path.write_text("")
    os.setxattr(path, "user.colour", b"red")
    # VFS_CAP_REVISION_2, effective: CAP_NET_BIND_SERVICE
    os.setxattr(path, "security.capability", struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0))
    before = sorted(os.listxattr(path))
    os.chown(path, 7, 8)
    return before, sorted(os.listxattr(path)), os.getxattr(path, "user.colour").decode()


def access_list(directory: Path) -> object:
    """A POSIX ACL: user 1000 may read a file that nobody else may, and a directory's default goes to what is made."""
    path = directory / "acl"
    path.mkdir(mode=0o700)
    entries = [(1, 7, -1), (2, 5, 1000), (4, 0, -1), (16, 5, -1), (32, 0, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    os.setxattr(path, "system.posix_acl_access", acl)
    os.setxattr(path, "system.posix_acl_default", acl)
    (path / "file").write_text("secret")
    return _in_child(lambda: _read_as(1000, path)), _in_child(lambda: _read_as(1001, path)), oct(path.stat().st_mode)


def _read_as(uid: int, path: Path) -> int:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    try:
        (path / "file").read_text()
    except PermissionError:
        return 1
    return 0


def sync(directory: Path) -> object:
    """Of a file, of its data, and of a directory."""
    with (directory / "synced").open("wb") as file:
        file.write(b"x" * 100000)
        file.flush()
        os.fsync(file.fileno())
        os.fdatasync(file.fileno())
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)
    return (directory / "synced").stat().st_size


def holes(directory: Path) -> object:
    """A sparse file takes no more of the disk than it has."""
    with (directory / "sparse").open("wb") as file:
        file.seek(64 << 20)
        file.write(b"end")
    status = (directory / "sparse").stat()
    return status.st_size, status.st_blocks < 1000


def links(directory: Path) -> object:
    """Hard and symbolic, a FIFO, a device node and a set-user-id bit."""
    (directory / "first").write_text("linked")
    os.link(directory / "first", directory / "second")
    (directory / "symbolic").symlink_to("first")
    os.mkfifo(directory / "fifo", 0o640)
    os.mknod(directory / "device", 0o20600, os.makedev(1, 3))
    os.chown(directory / "first", 1234, 5678)
    (directory / "first").chmod(0o6755)
    status = (directory / "second").stat()
    return status.st_nlink, oct(status.st_mode), status.st_uid, status.st_gid, (directory / "symbolic").read_text()


def unlinked(directory: Path) -> object:
    """A file that is open lives on without its name."""
    with (directory / "gone").open("w+b") as file:
        file.write(b"still here")
        (directory / "gone").unlink()
        file.seek(0)
        return file.read().decode(), os.fstat(file.fileno()).st_nlink


def appended(directory: Path) -> object:
    """By two descriptors at once, each at the end."""
    with (directory / "log").open("ab", buffering=0) as one, (directory / "log").open("ab", buffering=0) as other:
        one.write(b"a")
        other.write(b"b")
        one.write(b"c")
    return (directory / "log").read_text()


main(Path(sys.argv[1]))
