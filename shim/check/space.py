"""The three directories: whether there is room, and whether their file systems can do what is asked of them.

The file that a probe makes has no name (O_TMPFILE).
"""

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shim.check.host import Host
from shim.check.line import Report
from shim.check.thread import in_thread
from shim.rootfs.snapshot import birth

_MIB: Final = 1 << 20
_INODES_FEW: Final = 1000
_HOLE: Final = 1 << 20
# statfs(2)
_TMPFS: Final = "tmpfs"
_XATTR: Final = "user.qemubox.check"


@dataclass(frozen=True, slots=True)
class _Need:
    """What a directory is for, and with how many MiB free it is a failure, or a warning."""

    key: str
    path: str
    least_mib: int
    enough_mib: int


async def look(host: Host, report: Report) -> None:
    """See the module."""
    runtime, rootfs = host.config.runtime, host.config.rootfs
    for need in (
        _Need("runtime.state_dir", runtime.state_dir, 1, 64),
        _Need("runtime.data_dir", runtime.data_dir, 64, min(4096, rootfs.writable_mib)),
        _Need("runtime.cache_dir", runtime.cache_dir, 64, min(4096, rootfs.cache_limit_mib)),
    ):
        await in_thread(lambda need=need: _room(report, need))  # type: ignore[misc]
    _state(host, report, runtime.state_dir)
    if host.directory is None:
        report.failure(runtime.state_dir, host.no_directory, "make it a directory that root can write to")
        return
    for key, directory in (("runtime.data_dir", runtime.data_dir), ("runtime.cache_dir", runtime.cache_dir)):
        await in_thread(lambda key=key, directory=directory: _try(report, key, directory))  # type: ignore[misc]


def existing(path: Path) -> Path:
    """The directory itself, or the nearest above it that is there: that is where it will be made."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _room(report: Report, need: _Need) -> None:
    there = existing(Path(need.path))
    if not there.is_dir():
        report.failure(f"{need.key} {need.path}", f"{there} is no directory", f"name another as {need.key}")
        return
    found = os.statvfs(there)
    free_mib = found.f_bavail * found.f_frsize // _MIB
    words = f"{free_mib} MiB free"
    what = f"{need.key} {need.path}"
    mend = f"free some of that file system, or name another as {need.key}"
    # Where a file system makes inodes as it needs them (btrfs), it says that it has none.
    few = found.f_files > 0 and found.f_favail < _INODES_FEW
    if found.f_flag & os.ST_RDONLY:
        report.failure(what, "the file system is read-only", f"mount -o remount,rw, or name another as {need.key}")
    elif free_mib < need.least_mib or (found.f_files > 0 and found.f_favail == 0):
        report.failure(what, f"{words}, {found.f_favail} inodes: no container can be made", mend)
    elif free_mib < need.enough_mib or few:
        report.warning(what, f"{words}, {found.f_favail} inodes: that is soon used up", mend)
    else:
        report.ok(what, f"{words}, {found.f_favail or 'no limit of'} inodes")


def file_system(host: Host, path: Path) -> str:
    """What kind of file system a path is on: proc_pid_mountinfo(5), the longest mount point that leads to it."""
    best, kind = "", "unknown"
    for line in (host.text("/proc/self/mountinfo") or "").splitlines():
        fields, _, rest = line.partition(" - ")
        point = fields.split()[4].replace("\\040", " ")
        inside = path == Path(point) or Path(point) in path.parents
        if inside and len(point) >= len(best):
            best, kind = point, rest.split()[0]
    return kind


def _state(host: Host, report: Report, directory: str) -> None:
    kind = file_system(host, Path(os.path.realpath(directory)))
    what = f"runtime.state_dir {directory}"
    if kind in (_TMPFS, "ramfs"):
        report.ok(what, f"a {kind}: what is in it ends with the host's boot")
    else:
        report.warning(
            what,
            f"a {kind} and no tmpfs: after a power loss, records of containers that are no more are still there",
            "mount a tmpfs there or on the directory above it (most have one on /run), and call qemubox gc at boot",
        )
    kind = file_system(host, Path(os.path.realpath(host.config.runtime.data_dir)))
    if kind in (_TMPFS, "ramfs"):
        report.warning(
            f"runtime.data_dir {host.config.runtime.data_dir}",
            f"a {kind}: what containers write takes the host's memory, and what has not come back to its snapshot is "
            "lost with the host's power",
            "name a directory on a disk as runtime.data_dir",
        )


def _try(report: Report, key: str, directory: str) -> None:
    """By a file without a name, and nothing else: whatever ends us, nothing is left."""
    what = f"{key} {directory}"
    there = existing(Path(directory))
    try:
        problems = _problems(there)
    except OSError as error:
        report.failure(what, f"no file can be made in {there}: {error.strerror}", f"name another directory as {key}")
        return
    if not problems:
        report.ok(what, "sparse files, extended attributes and times of birth")
    for problem, mend in problems:
        report.warning(what, problem, mend)


def _problems(place: Path) -> list[tuple[str, str]]:
    """What the file system lacks, and what to do. Raises OSError."""
    problems = []
    another = "use ext4, xfs or btrfs there"
    try:
        fd = os.open(place, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
            raise
        return [("no file without a name can be made, so it was not tried further", another)]
    try:
        os.ftruncate(fd, _HOLE)
        if os.fstat(fd).st_blocks * 512 >= _HOLE:
            problems.append(("no sparse files: each container takes rootfs.writable_mib whole", another))
        try:
            os.setxattr(fd, _XATTR, b"")
        except OSError as error:
            problems.append((f"no extended attributes: {error.strerror}", another))
        if not birth(Path(f"/proc/self/fd/{fd}"))[1]:
            problems.append(("no times of birth: a writable image is not kept after a crash", another))
    finally:
        os.close(fd)
    return problems
