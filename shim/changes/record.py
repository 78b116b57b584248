"""What was applied is remembered, so that what has not changed since is left alone, and what has gone is removed.

    RECORD       what the last run that went well has applied
    RECORD.new   what the run that is under way has applied, or is about to; it becomes RECORD

Both are in the order of the listing. Where RECORD.new was left by a run that did not end well, everything in either
of them may be in the directory, and nothing can be relied on that comes before where the run was, or is in there: it
is applied again. So the new one also has what the run has removed.

A header says for which directory it is. After that, for each name: how many names it has, what else is known (_COVERS,
_GONE), the digest of its inode (listing.py), the length of the last name, and that. RECORD ends with a digest of all
before it. A record that is damaged, or of another directory, is none.
"""

import contextlib
import heapq
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final

from shim.changes.beneath import Names
from shim.changes.listing import RACY

_MAGIC: Final = b"qemubox changes 1\n"
# Inode of the directory; the name of what is being made in it.
_HEADER: Final = struct.Struct("<18sQ16s")
_ENTRY: Final = struct.Struct("<HB16sB")
_COVERS: Final = 1
_GONE: Final = 2
_DIGEST_BYTES: Final = 16
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Known:
    """A name that was applied, or may have been. RACY as its digest is no inode's."""

    names: Names
    digest: bytes
    # A whiteout was at its place, of an earlier start: it is put back if the name goes away.
    covers: bool
    # It was removed, or was about to be.
    gone: bool = False


class Record:
    """The record at `path`, of a directory with the inode number `directory`, read and written by one at a time.

    Opening it raises OSError. `interrupted` says that the last run did not end well. Unless it is `trusted`, nothing is
    known of what was applied but the names.
    """

    def __init__(self, path: Path, directory: int, *, trusted: bool = True) -> None:
        self._path = path
        self._new = path.with_name(f"{path.name}.new")
        self._directory = directory
        self._hash = blake2b(digest_size=_DIGEST_BYTES)
        with contextlib.ExitStack() as stack:
            old = self._whole(path)
            token = old[1] if old is not None else b""
            self.interrupted = self._new.exists()
            if self.interrupted:
                token = self._unite(old is not None) or token
                old = self._whole(path)
            self._token = token or os.urandom(16)
            # Whether what was applied before is known.
            self.found = old is not None
            self.known: Iterator[Known] = iter(())
            if old is not None:
                file = stack.enter_context(path.open("rb"))
                entries = (known for known in _entries(file, old[0]) if not known.gone)
                self.known = entries if trusted else _forget(entries)
            self._file: BinaryIO = stack.enter_context(self._new.open("wb"))
            self._write(_HEADER.pack(_MAGIC, directory, self._token))
            self._stack = stack.pop_all()

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close it. Unless `finish` was called, the run counts as interrupted."""
        self._stack.close()

    @property
    def making(self) -> bytes:
        """The name of what is not ready: the same in every run, and nobody's who cannot read the record."""
        return b".qemubox-" + self._token.hex().encode()

    def add(self, known: Known) -> None:
        """Remember that this is applied from now on, or may be; `flush` it before it is."""
        self._write(_packed(known))

    def flush(self) -> None:
        """What was added outlives this process. Raises OSError."""
        self._file.flush()

    def finish(self) -> None:
        """All that was added has been applied, and nothing else is there. Raises OSError."""
        self._file.write(self._hash.digest())
        self._file.flush()
        self._new.rename(self._path)

    def _write(self, data: bytes) -> None:
        self._hash.update(data)
        self._file.write(data)

    def _whole(self, path: Path) -> tuple[int, bytes] | None:
        """Where the entries of a whole record end, and its token; None if there is no such record."""
        try:
            with path.open("rb") as file:
                end = os.fstat(file.fileno()).st_size - _DIGEST_BYTES
                token = self._header(file)
                if token is None or end < _HEADER.size:
                    return None
                file.seek(0)
                digest = blake2b(digest_size=_DIGEST_BYTES)
                left = end
                while left and (data := file.read(min(left, _CHUNK))):
                    digest.update(data)
                    left -= len(data)
                return (end, token) if file.read() == digest.digest() else None
        except FileNotFoundError:
            return None

    def _header(self, file: BinaryIO) -> bytes | None:
        """The token; None if it is no record, or of another directory."""
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return None
        magic, directory, token = _HEADER.unpack(header)
        return bytes(token) if (magic, directory) == (_MAGIC, self._directory) else None

    def _unite(self, has_old: bool) -> bytes | None:
        """Make one record of the last one and the new one of a run that was interrupted; the latter's token."""
        united = self._path.with_name(f"{self._path.name}.united")
        with contextlib.ExitStack() as stack:
            new = stack.enter_context(self._new.open("rb"))
            token = self._header(new)
            if token is None:  # killed before it had written anything, or damaged
                return None
            end = os.fstat(new.fileno()).st_size
            reached: Names | None = None
            for known in _entries(new, end):
                reached = known.names
            parts = [_forget(_entries(new, end))]
            if has_old:
                old = stack.enter_context(self._path.open("rb"))
                parts.append(_beyond(reached, _entries(old, os.fstat(old.fileno()).st_size - _DIGEST_BYTES)))
            digest = blake2b(digest_size=_DIGEST_BYTES)
            file = stack.enter_context(united.open("wb"))
            for data in (_HEADER.pack(_MAGIC, self._directory, token), *map(_packed, _join(*parts))):
                digest.update(data)
                file.write(data)
            file.write(digest.digest())
        united.rename(self._path)
        return token


def _packed(known: Known) -> bytes:
    name = known.names[-1] if known.names else b""
    what = known.covers * _COVERS | known.gone * _GONE
    return _ENTRY.pack(len(known.names), what, known.digest, len(name)) + name


def _entries(file: BinaryIO, end: int) -> Iterator[Known]:
    """What is in an open record before `end`, as far as it makes sense."""
    file.seek(_HEADER.size)
    at = _HEADER.size
    names: Names = ()
    while at + _ENTRY.size <= end:
        depth, what, digest, length = _ENTRY.unpack(file.read(_ENTRY.size))
        at += _ENTRY.size + length
        name = file.read(length)
        if at > end or depth > len(names) + 1 or bool(depth) != bool(name):
            return
        names = (*names[: depth - 1], name) if depth else ()
        yield Known(names, digest, bool(what & _COVERS), bool(what & _GONE))


def _forget(entries: Iterator[Known]) -> Iterator[Known]:
    """The same names, of which nobody knows what they are."""
    return (Known(known.names, RACY, known.covers) for known in entries)


def _beyond(reached: Names | None, entries: Iterator[Known]) -> Iterator[Known]:
    """Those of the record before, of which only what comes after what the run had `reached` is known to be as it was.

    What the run did not find any more it may have removed; and what is in a directory went with that.
    """
    for known in entries:
        if known.gone:
            continue
        untouched = reached is None or (known.names > reached and known.names[: len(reached)] != reached)
        yield known if untouched else Known(known.names, RACY, known.covers)


def _join(*parts: Iterator[Known]) -> Iterator[Known]:
    """All of several records, in order, each name once: what only one of them has as it is there."""
    last: Known | None = None
    for known in heapq.merge(*parts, key=lambda each: each.names):
        if last is not None and last.names == known.names:
            last = Known(known.names, RACY, last.covers or known.covers)
            continue
        if last is not None:
            yield last
        last = known
    if last is not None:
        yield last
