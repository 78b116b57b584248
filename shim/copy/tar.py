"""The stream `-` of `qemubox cp`: records as tar in PAX format, and any tar that Python reads as records.

Reading takes what tarfile does: ustar, GNU and PAX, also compressed. What is packed in it is its owner's affair: paths
that are absolute begin at the destination, and one with `..` is refused.
"""

import os
import posixpath
import tarfile
import time
from collections.abc import Callable, Iterable
from typing import BinaryIO, Final

from archive.records import DATA_MOST, END, HEADER, Entry, Hole, Kind, Record, check_path, encode
from shim.errors import HostError, SpecError

_XATTR: Final = "SCHILY.xattr."
_SECOND: Final = 1_000_000_000
_TYPES: Final = {
    Kind.FILE: tarfile.REGTYPE,
    Kind.DIRECTORY: tarfile.DIRTYPE,
    Kind.SYMLINK: tarfile.SYMTYPE,
    Kind.LINK: tarfile.LNKTYPE,
    Kind.FIFO: tarfile.FIFOTYPE,
    Kind.CHARACTER: tarfile.CHRTYPE,
    Kind.BLOCK: tarfile.BLKTYPE,
}
_KINDS: Final = {member: kind for kind, member in _TYPES.items()}
_ZEROS: Final = bytes(1 << 16)

Write = Callable[[bytes | memoryview], object]


def to_tar(records: Iterable[Record], write: Write, base: bytes) -> None:
    """Write a whole archive; the first entry is called `base` in it, or `.` where that is empty.

    Raises what `records` and `write` do.
    """
    left = written = 0

    def out(data: bytes | memoryview) -> None:
        nonlocal written
        write(data)
        written += len(data)

    for record in records:
        if isinstance(record, Entry):
            out(_header(record, base))
            left = record.size
        elif isinstance(record, Hole):
            for at in range(0, record.size, len(_ZEROS)):
                out(_ZEROS[: record.size - at])
            left -= record.size
        else:
            left -= len(record)
            out(record)
        if not left:
            out(bytes(-written % tarfile.BLOCKSIZE))
    out(bytes(2 * tarfile.BLOCKSIZE))
    out(bytes(-written % tarfile.RECORDSIZE))


def _header(entry: Entry, base: bytes) -> bytes:
    info = tarfile.TarInfo(_name(entry.path, base))
    info.type, info.mode, info.uid, info.gid, info.size = (
        _TYPES[entry.kind],
        entry.mode,
        entry.uid,
        entry.gid,
        entry.size,
    )
    info.devmajor, info.devminor = entry.device
    if entry.kind is Kind.LINK:
        info.linkname = _name(entry.target, base)
    elif entry.kind is Kind.SYMLINK:
        info.linkname = os.fsdecode(entry.target)
    seconds, nanoseconds = divmod(entry.mtime_ns, _SECOND)
    info.mtime = max(seconds, 0)
    info.pax_headers = {
        f"{_XATTR}{os.fsdecode(name)}": value.decode("utf-8", "surrogateescape") for name, value in entry.xattrs
    }
    if nanoseconds or seconds < 0:
        # Negative ones as tar has them: the sign is the whole number's.
        whole, sign = (abs(entry.mtime_ns), "-" if seconds < 0 else "")
        info.pax_headers["mtime"] = f"{sign}{whole // _SECOND}.{whole % _SECOND:09d}"
    header = bytearray(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
    # tarfile leaves the plain field at 0 where there is a PAX one; who reads no PAX (busybox) shall have the second.
    last = memoryview(header)[-tarfile.BLOCKSIZE :]
    last[136:148] = b"%011o\0" % min(info.mtime, 0o77777777777)
    last[148:156] = b" " * 8
    last[148:156] = b"%06o\0 " % sum(last)
    return bytes(header)


def _name(path: bytes, base: bytes) -> str:
    return os.fsdecode(b"/".join(part for part in (base or b".", path) if part))


def from_tar(stream: BinaryIO, write: Write, *, owners: bool, below: bytes = b"") -> None:
    """Write the records of a directory that has in it what the archive has, which is read from `stream` to its end.

    Owners are root's unless `owners`. `below` is a directory in that directory, which is to be made. Raises HostError
    for what is no archive, SpecError for what is in it.
    """
    write(encode(Entry(b"", Kind.DIRECTORY)))
    if below:
        write(encode(Entry(below, Kind.DIRECTORY, mtime_ns=time.time_ns())))
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as archive:
            for member in archive:
                path = _inside(member.name)
                if path:
                    _member(archive, member, _below(below, path), write, owners=owners, below=below)
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
    except (tarfile.TarError, EOFError) as error:
        raise HostError(f"standard input is no whole tar archive: {error}") from error
    write(END)


def _member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, path: bytes, write: Write, *, owners: bool, below: bytes
) -> None:
    kind = _KINDS.get(member.type, Kind.FILE if member.isreg() else None)
    if kind is None:
        raise SpecError(f"{member.name}: a tar member of the type {member.type!r} is not known")
    entry = Entry(
        path,
        kind,
        member.mode & 0o7777,
        member.uid if owners else 0,
        member.gid if owners else 0,
        _mtime_ns(member),
        member.size if kind is Kind.FILE else 0,
        xattrs=tuple(
            (os.fsencode(name.removeprefix(_XATTR)), value.encode("utf-8", "surrogateescape"))
            for name, value in member.pax_headers.items()
            if name.startswith(_XATTR)
        ),
    )
    if kind is Kind.LINK:
        entry = entry._replace(target=_below(below, _inside(member.linkname)))
    elif kind is Kind.SYMLINK:
        entry = entry._replace(target=os.fsencode(member.linkname))
    elif kind in (Kind.CHARACTER, Kind.BLOCK):
        entry = entry._replace(device=(member.devmajor, member.devminor))
    write(encode(entry))
    if kind is Kind.FILE:
        content = archive.extractfile(member)
        assert content is not None
        left = member.size
        while left:
            data = content.read(min(left, DATA_MOST))
            if not data:
                raise tarfile.ReadError("unexpected end of data")
            write(HEADER.pack(b"D", len(data)))
            write(data)
            left -= len(data)


def _below(directory: bytes, path: bytes) -> bytes:
    return b"/".join(part for part in (directory, path) if part)


def _inside(name: str) -> bytes:
    """A member's path from the destination; empty for that itself. Raises SpecError."""
    path = os.fsencode(name)
    if b".." in path.split(b"/"):
        raise SpecError(f"{name}: a path with .. in it is not unpacked")
    path = posixpath.normpath(b"/" + path).lstrip(b"/")
    check_path(path)
    return path


def _mtime_ns(member: tarfile.TarInfo) -> int:
    """PAX has it as a decimal number, of which a float would lose the end."""
    whole, _, fraction = member.pax_headers.get("mtime", "").partition(".")
    try:
        nanoseconds = int(whole) * _SECOND
    except ValueError:
        return int(member.mtime) * _SECOND
    part = int(f"{fraction[:9]:<09}") if fraction[:9].isdigit() else 0
    return nanoseconds - part if whole.startswith("-") else nanoseconds + part
