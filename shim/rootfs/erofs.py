"""Turns a directory into an EROFS image with mkfs.erofs (erofs-utils 1.5 and newer).

Everything that a layer consists of is kept: owners, modes, times to the nanosecond, hard
links, devices, and all extended attributes, so whiteouts (character device 0:0) and
opaque directories (trusted.overlay.opaque) mean the same to an overlay in the guest.

Not compressed. Debian's minbase, 178 MiB, 2 cores, 2026-11: plain 158 MiB in 0.45 s, lz4
97 MiB in 0.64 s, lz4hc 90 MiB in 2.6 s; and the guest, whose instructions may be
emulated, would have to unpack. Short files stay inside the inodes (without: 174 MiB).
"""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from shim.errors import HostError, UnsupportedError
from shim.rootfs.program import Tool, run

PACKAGE: Final = "erofs-utils"
# Changes whenever the options below make another image of the same directory.
FORMAT: Final = "1"
# A fixed UUID makes equal directories equal images; EROFS finds nothing by it.
_OPTIONS: Final = ("--quiet", "--preserve-mtime", "-U", "00000000-0000-0000-0000-000000000000")
# As long as a name can be on Linux. erofs-utils before 1.8.5 lose the last byte, and then miss the file.
_NAME_BYTES: Final = 255


async def convert(tool: Tool, directory: Path, image: Path, *, keep_open: Sequence[int] = ()) -> None:
    """Write an image of `directory` to `image`, which is overwritten; equal trees give equal images.

    The descriptors in `keep_open` are open in mkfs.erofs too. Raises MissingPartError,
    ResourceError (full disk), UnsupportedError (a name that this mkfs.erofs cannot take) or
    HostError; then what is in `image` is worth nothing.
    """
    task = f"make an image of {directory} as {image}"
    try:
        await run(tool, (*_OPTIONS, str(image), str(directory)), task=task, keep_open=keep_open)
    except HostError as error:
        path = await asyncio.to_thread(_longest_name, directory)
        if path is None:
            raise
        raise UnsupportedError(
            f"{error.message}; perhaps for the name {path!r} of {_NAME_BYTES} bytes",
            hint="erofs-utils 1.8.5 and newer take such names",
        ) from error


def _longest_name(directory: Path) -> str | None:
    for at, directories, files in os.walk(directory):
        for name in (*directories, *files):
            if len(os.fsencode(name)) == _NAME_BYTES:
                return os.path.join(at, name)
    return None
