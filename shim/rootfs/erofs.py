"""Turns a directory into an EROFS image with mkfs.erofs (erofs-utils 1.5 and newer).

Everything that a layer consists of is kept: owners, modes, times to the nanosecond, hard
links, devices, and all extended attributes, so whiteouts (character device 0:0) and
opaque directories (trusted.overlay.opaque) mean the same to an overlay in the guest.

Not compressed. Debian's minbase, 178 MiB, 2 cores, 2026-11: plain 158 MiB in 0.45 s, lz4
97 MiB in 0.64 s, lz4hc 90 MiB in 2.6 s; and the guest, whose instructions may be
emulated, would have to unpack. Short files stay inside the inodes (without: 174 MiB).
"""

import asyncio
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from shim.errors import HostError, UnsupportedError
from shim.rootfs.program import Tool, run

# Changes whenever the options below make another image of the same directory.
FORMAT: Final = "1"
# The build time in an image is always this, so that equal trees give equal images. erofs-utils 1.5 also cuts files'
# times down to it, as unsigned numbers: it is the largest, so only the last 2 s of 1969 suffer.
_ENVIRONMENT: Final = (("SOURCE_DATE_EPOCH", str(2**64 - 2)),)
# Without the superblock's own checksum, the UUID can be written into it afterwards.
_OPTIONS: Final = ("--quiet", "--preserve-mtime", "-E", "nosbcrc", "-U")
_NO_UUID: Final = "00000000-0000-0000-0000-000000000000"
# Linux, fs/erofs/erofs_fs.h: the superblock is at 1024, its UUID 48 bytes further.
_UUID_AT: Final = 1024 + 48
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
    HostError; then what is in `image` is worth nothing.
    """
    task = f"make an image of {directory} as {image}"
    try:
        await run(mkfs, (*_OPTIONS, _NO_UUID, str(image), str(directory)), task=task, keep_open=keep_open)
    except HostError as error:
        path = await asyncio.to_thread(_longest_name, directory)
        if path is None:
            raise
        raise UnsupportedError(
            f"{error.message}; perhaps for the name {path!r} of {_NAME_BYTES} bytes",
            hint="erofs-utils 1.8.5 and newer take such names",
        ) from error


def name(image: Path) -> str:
    """Give a finished image its UUID, from the SHA-256 of what it was without; that, in hex.

    Overlayfs connects a file's copy in the upper layer with the original only if no two of
    its layers have the same UUID or none (Linux, fs/overlayfs/super.c, ovl_lower_uuid_ok).
    Without that the file has another inode number after the first write to it (tried with
    6.18). Blocks, for as long as it takes to read the image.
    """
    with image.open("r+b") as file:
        digest = hashlib.file_digest(file, "sha256")
        os.pwrite(file.fileno(), digest.digest()[:16], _UUID_AT)
        return digest.hexdigest()


def _longest_name(directory: Path) -> str | None:
    for at, directories, files in os.walk(directory):
        for name in (*directories, *files):
            if len(os.fsencode(name)) == _NAME_BYTES:
                return os.path.join(at, name)
    return None
