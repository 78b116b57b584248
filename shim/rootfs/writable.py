"""The ext4 file that takes a container's writes.

A sparse file of the configured size, formatted with everything switched off that would
write more than is needed: 10 GiB take 5 ms and 0.3 MiB (plain mkfs.ext4: 12 ms and 68 MiB),
so there is nothing to gain from keeping a ready-made one. The features are listed in
full, because the host's /etc/mke2fs.conf may ask for some that the guest's kernel lacks.
It has a journal: a machine that is killed leaves a file system that can be mounted.
"""

import errno
import os
from pathlib import Path
from typing import Final

from shim.errors import HostError, ResourceError
from shim.rootfs import flock
from shim.rootfs.program import Tool, run

PACKAGE: Final = "e2fsprogs"
_FEATURES: Final = (
    "none,has_journal,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,"
    "dir_nlink,extra_isize,metadata_csum"
)
# The file reads as zeros, so neither inode tables nor journal need to be written, now or by the guest.
_EXTENDED: Final = "lazy_itable_init=1,lazy_journal_init=1"


async def make(tool: Tool, path: Path, size_bytes: int, *, uuid: str = "") -> None:
    """Make `path` an empty ext4 of `size_bytes`; it appears whole or not at all.

    Another who makes the same file is waited for, and its file taken. Raises MissingPartError,
    ResourceError (full disk, or larger than the host's file system allows) or HostError.
    """
    making = path.with_name(f"{path.name}.making")
    try:
        fd = await flock.exclusive(making, tool.timeout_s)
    except TimeoutError:
        raise HostError(f"{making}: locked by another process for more than {tool.timeout_s:g} s") from None
    except OSError as error:
        raise _failure(making, error) from error
    try:
        if path.exists():
            making.unlink()
            return
        await _format(tool, fd, making, size_bytes, uuid)
        making.rename(path)
    except BaseException:
        making.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


async def _format(tool: Tool, fd: int, path: Path, size_bytes: int, uuid: str) -> None:
    try:
        os.ftruncate(fd, 0)
        os.ftruncate(fd, size_bytes)
    except OSError as error:
        raise _failure(path, error) from error
    words = ["-q", "-F", "-b", "4096", "-I", "256", "-m", "0", "-O", _FEATURES, "-E", _EXTENDED]
    words += ["-J", f"size={journal_mib(size_bytes)}"]
    words += ["-U", uuid] if uuid else []
    await run(tool, (*words, str(path)), task=f"format {path} with {size_bytes} bytes", keep_open=(fd,))


def journal_mib(size_bytes: int) -> int:
    """A thirty-second of the file system, from 4 MiB, the least that ext4 takes, to 32 MiB."""
    return min(32, max(4, size_bytes >> 25))


def _failure(path: Path, error: OSError) -> HostError | ResourceError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ResourceError(f"{path}: {error.strerror}", hint="free some of that file system, or lower writable_mib")
    return HostError(f"{path}: {error.strerror}")
