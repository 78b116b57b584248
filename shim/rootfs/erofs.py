"""Turns a directory into an EROFS image with mkfs.erofs (erofs-utils 1.5 and newer).

Everything that a layer consists of is kept: owners, modes, times to the nanosecond, hard
links, devices, and all extended attributes, so whiteouts (character device 0:0) and
opaque directories (trusted.overlay.opaque) mean the same to an overlay in the guest.

Not compressed. Debian's minbase, 178 MiB, 2 cores, 2026-11: plain 158 MiB in 0.45 s, lz4
97 MiB in 0.64 s, lz4hc 90 MiB in 2.6 s; and the guest, whose instructions may be
emulated, would have to unpack. Short files stay inside the inodes (without: 174 MiB).

A tree that has a file with large holes gets an image of chunks, where equal ones are stored once, so holes take one
chunk in all (docs/decisions/0028). In such an image no file is inside its inode.
"""

import asyncio
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

from shim.errors import HostError, QemuboxError, UnsupportedError
from shim.rootfs import superblock
from shim.rootfs.program import Tool, run
from shim.rootfs.survey import survey

# Changes whenever the options below make another image of the same directory.
FORMAT: Final = "2"
# The build time in an image is always this, so that equal trees give equal images. erofs-utils 1.5 also cuts files'
# times down to it, as unsigned numbers: it is the largest, so only the last 2 s of 1969 suffer.
_ENVIRONMENT: Final = (("SOURCE_DATE_EPOCH", str(2**64 - 2)),)
# Without the superblock's own checksum, the UUID can be written into it afterwards.
_OPTIONS: Final = ("--quiet", "--preserve-mtime", "-E", "nosbcrc", "-U")
_NO_UUID: Final = "00000000-0000-0000-0000-000000000000"
# The least size of a chunk, and how many the largest file may have: each takes four bytes of what describes the file.
_CHUNK_BYTES: Final = 1 << 16
_CHUNKS: Final = 1 << 20
# A tree may change once while it is converted: its files' count of links, by whoever links them elsewhere.
_TRIES: Final = 2
_READ_BYTES: Final = 1 << 20
# As long as a name can be on Linux. erofs-utils before 1.8.5 lose the last byte, and then miss the file.
_NAME_BYTES: Final = 255


def tool(program: str, timeout_s: float) -> Tool:
    """mkfs.erofs, which is `program`."""
    return Tool(program, "erofs-utils", timeout_s, _ENVIRONMENT)


async def convert(mkfs: Tool, directory: Path, image: Path, *, keep_open: Sequence[int] = ()) -> None:
    """Write an image of `directory` to `image`, which is overwritten.

    Equal trees give equal images, so they have no UUID yet: `name` gives them one. The
    descriptors in `keep_open` are open in mkfs.erofs too. Raises MissingPartError,
    ResourceError (full disk), UnsupportedError (a name that this mkfs.erofs cannot take) or
    HostError, also where the tree does not stand still; then what is in `image` is worth nothing.
    """
    before = await asyncio.to_thread(survey, directory)
    for _ in range(_TRIES):
        failure: QemuboxError | None = None
        try:
            await _make(mkfs, directory, image, before.sparse_bytes, keep_open)
        except (HostError, UnsupportedError) as error:  # of a file that has just gone, perhaps
            failure = error
        after = await asyncio.to_thread(survey, directory)
        if after == before:
            if failure is not None:
                raise failure
            return
        before = after
    raise HostError(
        f"layer {directory}: changed while its image was made, {_TRIES} times",
        hint="find out what writes into it: a snapshot's directory belongs to its snapshotter",
    )


async def _make(mkfs: Tool, directory: Path, image: Path, sparse_bytes: int, keep_open: Sequence[int]) -> None:
    task = f"make an image of {directory} as {image}"
    options = (*_OPTIONS, _NO_UUID, *((f"--chunksize={chunk_bytes(sparse_bytes)}",) if sparse_bytes else ()))
    try:
        await run(mkfs, (*options, str(image), str(directory)), task=task, keep_open=keep_open)
    except HostError as error:
        path = await asyncio.to_thread(_longest_name, directory)
        if path is None:
            hint = error.hint or ("erofs-utils 1.6 and newer pass over holes of files" if sparse_bytes else "")
            raise HostError(error.message, hint=hint) from error
        raise UnsupportedError(
            f"{error.message}; perhaps for the name {path!r} of {_NAME_BYTES} bytes",
            hint="erofs-utils 1.8.5 and newer take such names",
        ) from error


def chunk_bytes(sparse_bytes: int) -> int:
    """The size of chunks for an image whose largest file with holes has that size."""
    size = _CHUNK_BYTES
    while sparse_bytes > size * _CHUNKS:
        size *= 2
    return size


def name(image: Path) -> str:
    """Give a finished image its UUID (superblock.py); the SHA-256 of what it was without, in hex.

    Overlayfs connects a file's copy in the upper layer with the original only if no two of
    its layers have the same UUID or none (Linux, fs/overlayfs/super.c, ovl_lower_uuid_ok).
    Without that the file has another inode number after the first write to it (tried with
    6.18). Blocks, for as long as it takes to read the image.
    """
    with image.open("r+b") as file:
        digest = read_digest(file)
        superblock.write_uuid(file.fileno(), superblock.uuid(os.pread(file.fileno(), superblock.BLOCK, 0), digest))
        return digest


def read_digest(image: BinaryIO) -> str:
    """What `name` has given, or would give, this image: all of it is read. Blocks."""
    digest = hashlib.sha256(superblock.without_uuid(image.read(superblock.BLOCK)))
    while block := image.read(_READ_BYTES):
        digest.update(block)
    return digest.hexdigest()


def _longest_name(directory: Path) -> str | None:
    for at, directories, files in os.walk(directory):
        for name in (*directories, *files):
            if len(os.fsencode(name)) == _NAME_BYTES:
                return os.path.join(at, name)
    return None
