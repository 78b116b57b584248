"""The guest knows a layer by its disk's serial number, people by its file on the host: its errors get that, too."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from shim.errors import GuestError
from shim.rootfs import gpt
from shim.rootfs.plan import Disk

# As vminitd's disks.Layer calls itself.
_LAYER: Final = re.compile(r"\w+ on disk '([\w-]+)'(?: partition (\d{1,3}))?")


@contextmanager
def explained(disks: Mapping[str, Disk]) -> Iterator[None]:
    """Add to what the guest says of a layer which file of the host that is; `disks` by the serial numbers it sees."""
    try:
        yield
    except GuestError as error:
        message = explain(error.message, disks)
        if message == error.message:
            raise
        raise GuestError(error.status, message) from error


def explain(message: str, disks: Mapping[str, Disk]) -> str:
    """The message with the files behind its disks. It is a guest's, and may be anything."""

    def named(words: re.Match[str]) -> str:
        path = _file(disks, words[1], int(words[2] or 0))
        return f"{words[0]} ({path})" if path else words[0]

    return _LAYER.sub(named, message, count=1)


def _file(disks: Mapping[str, Disk], serial: str, partition: int) -> Path | None:
    """The file that the disk, or its partition counted from 1, begins with; None where there is no such."""
    disk = disks.get(serial)
    if disk is None or disk.partitioned != bool(partition):
        return None
    at = gpt.start(os.pread(disk.extents[0].fd, disk.extents[0].size, 0), partition) if partition else 0
    for extent in disk.extents:
        if at == 0:
            return extent.path
        at -= extent.size
    return None
