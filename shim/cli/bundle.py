"""`qemubox debug bundle`: an archive for a report of a fault, with what one is asked for otherwise, bit by bit.

Everything in it is of bounded size, and made apart from everything else: what cannot be had is a line in the archive's
list, and no reason not to have the rest. What it never holds, parts.py says.
"""

import argparse
import errno
import io
import os
import tarfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shim.cli.parts import Part, parts
from shim.errors import HostError

PART_LIMIT: Final = 1 << 20
TOTAL_LIMIT: Final = 32 << 20
LIST_NAME: Final = "contents.txt"


@dataclass(frozen=True, slots=True)
class Collected:
    """One part: its bytes, the last of them where there are too many, or why there are none."""

    name: str
    data: bytes
    note: str

    def __str__(self) -> str:
        return f"{self.name}: {self.note}"


def run(arguments: argparse.Namespace) -> int:
    """Make the archive, and say what it holds. Raises HostError where it cannot be written."""
    path = Path(arguments.output or time.strftime("qemubox-debug-%Y%m%d-%H%M%S.tar.gz"))
    for number, amiss in ((errno.EISDIR, path.is_dir()), (errno.ENOENT, not path.parent.is_dir())):
        if amiss:  # told before the minutes that it may take
            raise HostError(f"{path}: {os.strerror(number)}")
    found = list(collect(parts(arguments.id or "")))
    try:
        write(path, found)
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}") from error
    for each in found:
        print(each)
    print(f"\n{path}: {path.stat().st_size >> 10} KiB. It holds no environment, no specification and no file of a")
    print(
        "container; it does hold ids of containers, what guests printed, and the host's configuration: look before you"
    )
    print("send it.")
    return 0


def collect(wanted: Iterable[Part]) -> Iterator[Collected]:
    """Each part as it could be had. What is above the limits is left out, the oldest of it, and that is said."""
    room = TOTAL_LIMIT
    for part in wanted:
        try:
            data = part.make()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and the others are made
            yield Collected(part.name, b"", f"cannot be had: {type(error).__name__}: {error}")
            continue
        kept = data[-min(PART_LIMIT, room) :] if room else b""
        room -= len(kept)
        note = f"{len(data)} bytes" if len(kept) == len(data) else f"the last {len(kept)} of {len(data)} bytes"
        yield Collected(part.name, kept, note)


def write(path: Path, found: Iterable[Collected]) -> None:
    """All of it, for root's eyes alone, in the place of what was at `path` only once it is whole. Raises OSError."""
    found = list(found)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    top = path.name.partition(".")[0]
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            listing = "".join(f"{each}\n" for each in found).encode(errors="backslashreplace")
            for name, data in ((LIST_NAME, listing), *((each.name, each.data) for each in found if each.data)):
                entry = tarfile.TarInfo(f"{top}/{name}")
                entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
                archive.addfile(entry, io.BytesIO(data))
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)
