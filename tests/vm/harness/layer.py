"""The layer that containerd makes of what a container has changed: `ctr snapshots diff`, looked into."""

import hashlib
import io
import os
import stat
import tarfile
from pathlib import Path

from harness.containerd import Containerd

Facts = dict[str, tuple[object, ...]]
_DEADLINE_S = 120.0


def of_snapshot(containerd: Containerd, key: str, snapshotter: str = "overlayfs") -> Facts:
    """All that stands in the snapshot's layer, by path: type, mode, owner, size, target, device, attributes, content.

    Order and times aside, which two containers cannot have in common.
    """
    result = containerd.ctr("snapshots", "--snapshotter", snapshotter, "diff", key, deadline_s=_DEADLINE_S).checked()
    with tarfile.open(fileobj=io.BytesIO(result.stdout)) as tar:
        return {member.name: _facts(tar, member) for member in tar}


def times(containerd: Containerd, key: str, snapshotter: str = "overlayfs") -> dict[str, float]:
    """The times of all in it."""
    result = containerd.ctr("snapshots", "--snapshotter", snapshotter, "diff", key, deadline_s=_DEADLINE_S).checked()
    with tarfile.open(fileobj=io.BytesIO(result.stdout)) as tar:
        return {member.name: member.mtime for member in tar}


def _facts(tar: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[object, ...]:
    content = tar.extractfile(member) if member.isreg() else None
    attributes = {key: value for key, value in member.pax_headers.items() if key.startswith("SCHILY.xattr.")}
    return (
        member.type,
        oct(member.mode),
        member.uid,
        member.gid,
        member.size,
        member.linkname,
        (member.devmajor, member.devminor) if member.isdev() else None,
        tuple(sorted(attributes.items())),
        hashlib.sha256(content.read()).hexdigest() if content else "",
    )


def of_directory(upper: Path) -> Facts:
    """All that stands in an upper directory on the host, as overlayfs reads it: whiteouts and opaque ones included."""
    paths = [upper, *sorted(upper.rglob("*"))]
    first_names: dict[int, str] = {}
    return {str(path.relative_to(upper)): _facts_of_file(path, str(path), first_names) for path in paths}


def _facts_of_file(path: Path, name: str, first_names: dict[int, str]) -> tuple[object, ...]:
    status = path.lstat()
    linked = not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1
    return (
        oct(status.st_mode),
        (status.st_uid, status.st_gid),
        status.st_rdev,
        Path(first_names.setdefault(status.st_ino, name)).name if linked else "",
        os.readlink(path) if path.is_symlink() else "",
        {key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)},
        hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(status.st_mode) else "",
    )
