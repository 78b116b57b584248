"""Which snapshotter a mount is of that cannot become a disk, why not, and what to use instead.

Pure. Named are those that people use beside containerd's own; what each mounts is in its
source: `createMounts` or `mounts` of fuse-overlayfs-snapshotter, nydus-snapshotter,
stargz-snapshotter, soci-snapshotter, accelerated-container-image (overlaybd) and zfs, and
plugins/snapshots/btrfs of containerd. What none of them mounts is refused by its type.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from shim.errors import UnsupportedError

HINT: Final = "use the overlayfs or the erofs snapshotter"
_SHARED: Final = "each snapshot is part of one file system, which the guest cannot mount while the host has it mounted"
_LAZY: Final = (
    "its layers come from the registry piece by piece, through the host's FUSE, where the guest cannot read them"
)
_ROOTLESS: Final = "it is that of a rootless containerd, and this shim must be root"
_AS_ROOT: Final = "run containerd as root, with its overlayfs snapshotter"
# By a part of the path of what it mounts: no snapshot of another has such a one.
_PLACES: Final = (
    ("/containerd-nydus/", "nydus", _LAZY),
    ("/io.containerd.snapshotter.v1.nydus/", "nydus", _LAZY),
    ("/io.containerd.snapshotter.v1.overlaybd/", "overlaybd", "its layers are devices of the host's overlaybd-tcmu"),
    ("/block/mountpoint", "overlaybd", "its layers are devices of the host's overlaybd-tcmu"),
)
# By the name that a FUSE file system has for what is mounted (proc_pid_mountinfo(5), "mount source").
_FUSE: Final = {"stargz": "stargz", "soci": "soci", "nydus": "nydus", "rafs": "nydus"}
_FUSE_PLACES: Final = ("stargz", "soci", "nydus")


def refuse_known(kind: str, source: str, options: Sequence[str]) -> None:
    """Raise UnsupportedError for a mount, of type `kind`, of a snapshotter that is known and cannot be used."""
    if kind.startswith("fuse3.fuse-overlayfs"):
        raise _refusal("fuse-overlayfs", _ROOTLESS, _AS_ROOT)
    if kind == "overlay" and "userxattr" in options:
        raise _refusal("overlayfs", f"by its option userxattr {_ROOTLESS}", _AS_ROOT)
    if any(option.startswith(("extraoption=", "io.katacontainers.volume=")) for option in options):
        raise _refusal("nydus", _LAZY)
    if kind.startswith("fuse."):
        raise _refusal("nydus" if "nydus" in kind else kind, _LAZY)
    if kind == "zfs":
        raise _refusal("zfs", f"dataset {source}: {_SHARED}")
    if kind == "btrfs" and any(option.startswith("subvol") for option in options):
        raise _refusal("btrfs", _SHARED)


def refuse_place(path: str) -> None:
    """Raise UnsupportedError for a directory of a snapshotter whose directories cannot be used."""
    for part, name, reason in _PLACES:
        if part in path:
            raise _refusal(name, f"{path}: {reason}")


def lazy(path: Path, source: str) -> UnsupportedError:
    """The refusal of a layer's directory that is the root of a FUSE file system, mounted from `source`."""
    known = _FUSE.get(source) or next((name for name in _FUSE_PLACES if name in str(path)), source)
    return _refusal(known, f"{path}: {_LAZY}")


def _refusal(name: str, reason: str, hint: str = HINT) -> UnsupportedError:
    return UnsupportedError(f"the {name} snapshotter cannot be used: {reason}", hint=hint)
