"""The ext4 file that takes a container's writes.

A sparse file of the configured size, formatted with everything switched off that would
write more than is needed: 10 GiB take 5 ms of CPU and 0.3 MiB (plain mkfs.ext4: 12 ms and
68 MiB). Containers get a copy of one that is ready-made (ready_made.py). The features are
listed in full, because the host's /etc/mke2fs.conf may ask for some that the guest's kernel
lacks. It has a journal: a machine that is killed leaves a file system that can be mounted.
"""

import asyncio
import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from shim.errors import HostError, ResourceError
from shim.rootfs import flock
from shim.rootfs.program import Tool, run

_FEATURES: Final = (
    "none,has_journal,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,"
    "dir_nlink,extra_isize,metadata_csum"
)
# The file reads as zeros, so neither inode tables nor journal need to be written, now or by the guest.
_EXTENDED: Final = "lazy_itable_init=1,lazy_journal_init=1"


def tool(program: str, timeout_s: float) -> Tool:
    """mkfs.ext4, which is `program`."""
    return Tool(program, "e2fsprogs", timeout_s)


async def make(mkfs: Tool, path: Path, size_bytes: int, *, uuid: str = "", lasting: bool = False) -> None:
    """Make `path` an empty ext4 of `size_bytes`; it appears whole or not at all, if `lasting` after a power loss, too.

    Another who makes the same file is waited for, and its file taken. Raises MissingPartError,
    ResourceError (full disk, or larger than the host's file system allows) or HostError.
    """
    making = path.with_name(f"{path.name}.making")
    with told(path):
        try:
            async with flock.maker(path.with_name(f"{making.name}.lock"), mkfs.timeout_s) as lock:
                if path.exists():
                    return
                try:
                    _empty_file(making, size_bytes)
                    await _format(mkfs, making, size_bytes, uuid, lock)
                    if lasting:
                        await asyncio.to_thread(_settle, making)
                    making.rename(path)
                finally:
                    making.unlink(missing_ok=True)
        except TimeoutError:
            raise HostError(f"{path}: another process did not finish it within {mkfs.timeout_s:g} s") from None


@contextlib.contextmanager
def told(path: Path) -> Iterator[None]:
    """Raise ResourceError for what there is no room for, HostError for any other OSError, with the path."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            hint = "free some of that file system, or lower writable_mib"
            raise ResourceError(f"{path}: {error.strerror}", hint=hint) from error
        raise HostError(f"{path}: {error.strerror}") from error


def _settle(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _empty_file(path: Path, size_bytes: int) -> None:
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, size_bytes)
    finally:
        os.close(fd)


async def _format(mkfs: Tool, path: Path, size_bytes: int, uuid: str, lock: int) -> None:
    words = ["-q", "-F", "-b", "4096", "-I", "256", "-m", "0", "-O", _FEATURES, "-E", _EXTENDED]
    words += ["-J", f"size={journal_mib(size_bytes)}"]
    words += ["-U", uuid] if uuid else []
    await run(mkfs, (*words, str(path)), task=f"format {path} with {size_bytes} bytes", keep_open=(lock,))


def journal_mib(size_bytes: int) -> int:
    """A thirty-second of the file system, from 4 MiB, the least that ext4 takes, to 32 MiB."""
    return min(32, max(4, size_bytes >> 25))
