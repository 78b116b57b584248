"""Who has a file locked, without disturbing anybody: the kernel's list of locks (proc_locks(5))."""

import os
from collections import Counter
from pathlib import Path
from typing import Final

LOCKS: Final = Path("/proc/locks")
# "1: FLOCK  ADVISORY  READ  4711 fe:01:131073 0 EOF"; one that is waited for has "->" behind the colon.
_FLOCK_FIELDS: Final = 8

Inode = tuple[int, int, int]


def shared_locks(text: str) -> Counter[Inode]:
    """How many open files have each inode (major, minor, number) locked shared, by flock(2). Pure."""
    found: Counter[Inode] = Counter()
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == _FLOCK_FIELDS and fields[1] == "FLOCK" and fields[3] == "READ":
            major, minor, number = fields[5].split(":")
            found[int(major, 16), int(minor, 16), int(number)] += 1
    return found


def inode_of(path: Path) -> Inode:
    """The key of a file in that list. Raises OSError.

    On Btrfs stat(2) has another device than the list: there no file is found in it.
    """
    status = path.stat()
    return os.major(status.st_dev), os.minor(status.st_dev), status.st_ino
