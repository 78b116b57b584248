"""The layer of an upper directory: a tar, as the OCI image specification has it (layer.md), in pieces.

Everything is kept that a layer can hold: modes, ids of any size, times to the nanosecond, extended attributes, hard
links, devices, FIFOs, names that are no UTF-8. (containerd's own comparison cuts times to seconds, and of the
attributes it keeps security.capability alone: core/archive/tar.go, ChangeWriter.) Not in it: sockets, which no tar can
hold; holes, which are zeros; and the directory's own root, which containerd ignores in every layer.

The headers are those of Python's tarfile, in PAX format. Where PAX's rules make tarfile round a time, the record is
written here.
"""

import os
import stat
import tarfile
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Final

from shim.commit.tree import Node
from shim.errors import HostError, UnsupportedError

_PIECE: Final = 1 << 20
_WHITEOUT: Final = b".wh."
_OPAQUE: Final = b".wh..wh..opq"
_NS: Final = 10**9
# The attributes in which overlayfs keeps its own affairs (Linux, Documentation/filesystems/overlayfs.rst). With
# `userxattr` they would be user.overlay.*, but such a snapshot is refused, so those are a container's: of a rootless
# container in it, say.
_OVERLAY: Final = "trusted.overlay."
# With these, a directory's or file's content is elsewhere than in the upper directory.
_ELSEWHERE: Final = ("redirect", "metacopy")
# Of security.*, only capabilities are the file's own; the others are labels of the host's policy.
_KEPT: Final = ("user.", "trusted.", "system.posix_acl_", "security.capability")
_XATTR: Final = "SCHILY.xattr."
_TYPES: Final = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


def pieces(nodes: Iterable[Node], *, overlay: bool, left_out: Callable[[str], None]) -> Generator[bytes, None, None]:
    """The tar, for whoever joins it. `overlay`: the nodes are those of an overlay's upper directory, with whiteouts.

    `left_out` is told the paths of what a layer cannot hold. Raises UnsupportedError or HostError, which name the path.
    """
    links: dict[int, bytes] = {}
    for node in nodes:
        mode = node.status.st_mode
        if overlay and stat.S_ISCHR(mode) and node.status.st_rdev == 0:
            yield _header(_named(_whiteout(node.path)))
            continue
        if stat.S_ISSOCK(mode):
            left_out(node.shown)
            continue
        if node.path.rpartition(b"/")[2].startswith(_WHITEOUT):
            raise UnsupportedError(
                f"/{node.shown}: a layer cannot hold a file whose name begins with .wh.: it would remove one",
                hint="rename or remove it",
            )
        info = _described(node, overlay=overlay)
        if (first := links.get(node.status.st_ino)) is not None:
            info.type, info.linkname, info.size = tarfile.LNKTYPE, os.fsdecode(first), 0
            yield _header(info)
            continue
        if node.status.st_nlink > 1 and not stat.S_ISDIR(mode):
            links[node.status.st_ino] = node.path
        yield _header(info)
        if stat.S_ISREG(mode):
            yield from _content(node)
        elif stat.S_ISDIR(mode) and overlay and _is_opaque(node):
            yield _header(_named(node.path + b"/" + _OPAQUE))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _described(node: Node, *, overlay: bool) -> tarfile.TarInfo:
    status = node.status
    info = _named(node.path)
    info.type = _TYPES[stat.S_IFMT(status.st_mode)]
    info.mode = stat.S_IMODE(status.st_mode)
    info.uid, info.gid = status.st_uid, status.st_gid
    info.mtime = max(0, status.st_mtime_ns // _NS)
    records = _attributes(node, overlay=overlay)
    if status.st_mtime_ns < 0 or status.st_mtime_ns % _NS:
        records["mtime"] = _seconds(status.st_mtime_ns)
    info.pax_headers = records
    if info.isreg():
        info.size = status.st_size
    elif info.issym():
        info.linkname = os.fsdecode(node.target())
    elif info.isdev():
        info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    return info


def _attributes(node: Node, *, overlay: bool) -> dict[str, str]:
    """The extended attributes that a layer has of this node, as records of PAX."""
    records = {}
    for name, value in node.xattrs.items():
        if overlay and name.startswith(_OVERLAY):
            if name.removeprefix(_OVERLAY) in _ELSEWHERE:
                raise UnsupportedError(
                    f"/{node.shown}: overlayfs has its content in another layer ({name})",
                    hint="mount the snapshot without redirect_dir and metacopy, or use nerdctl commit",
                )
        elif name.startswith(_KEPT):
            records[_XATTR + _keyword(node, name)] = value.decode("utf-8", "surrogateescape")
    return records


def _keyword(node: Node, name: str) -> str:
    """A keyword of PAX ends with the first "=", and is UTF-8 (POSIX, pax, "pax Extended Header")."""
    if "=" in name or not name.isprintable():
        raise UnsupportedError(f"/{node.shown}: a layer cannot hold an attribute of the name {name!r}")
    return name


def _content(node: Node) -> Iterator[bytes]:
    """As many bytes as the header has said. A file that grows meanwhile is cut there; one that shrinks is an error."""
    left = node.status.st_size
    if not left:
        return
    try:
        fd = node.open()
    except OSError as error:
        raise HostError(f"/{node.shown}: {error.strerror}") from error
    try:
        while left:
            data = _read(node, fd, min(left, _PIECE))
            if not data:
                raise HostError(f"/{node.shown}: became shorter while it was read", hint="leave out --no-pause")
            left -= len(data)
            yield data
    finally:
        os.close(fd)
    if rest := node.status.st_size % tarfile.BLOCKSIZE:
        yield bytes(tarfile.BLOCKSIZE - rest)


def _read(node: Node, fd: int, size: int) -> bytes:
    try:
        return os.read(fd, size)
    except OSError as error:
        raise HostError(f"/{node.shown}: {error.strerror}") from error


def _is_opaque(node: Node) -> bool:
    """An opaque directory hides what lower layers have in it; "x" only says that there are whiteouts in it."""
    return node.xattrs.get(f"{_OVERLAY}opaque") == b"y"


def _whiteout(path: bytes) -> bytes:
    parent, slash, name = path.rpartition(b"/")
    return parent + slash + _WHITEOUT + name


def _named(path: bytes) -> tarfile.TarInfo:
    return tarfile.TarInfo(os.fsdecode(path))


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _seconds(ns: int) -> str:
    """A time as PAX has it, exactly: the fraction counts away from zero."""
    sign, ns = ("-", -ns) if ns < 0 else ("", ns)
    return f"{sign}{ns // _NS}.{ns % _NS:09}".rstrip("0").rstrip(".")
