"""What Create's list of mounts means: which layers, topmost first, and where writes go.

Pure. Known are the overlayfs snapshotter of every containerd (`overlay`, and `bind` for
a snapshot without parents), and the erofs snapshotter of containerd 2.2 and newer
(`erofs` and `ext4` images, then an overlay or bind of their mount points written as a
template; plugins/snapshots/erofs/erofs.go; that of 2.1 is in mounted.py). Snapshotters
of whole file systems (blockfile, devmapper) are the case of a single image, with the file
systems that they can be told to make: ext4, ext2, xfs, btrfs. The paths are whole:
containerd shortens lowerdir to relative paths only in its own mount call
(compactLowerdirOption, core/mount/mount_linux.go). What other snapshotters mount is
refused by their names (snapshotters.py).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from api import types_pb2
from shim.errors import SpecError, UnsupportedError
from shim.rootfs import snapshotters
from shim.rootfs.overlay import MKDIR_PREFIX, NewDirectory, Owners, read_bind, read_overlay
from shim.rootfs.template import ActiveMount, expand

FsType = Literal["erofs", "ext4", "xfs", "btrfs"]
# What a whole file system is mounted as; the kernel's ext4 takes an ext2, too.
_WHOLE: Final[dict[str, FsType]] = {"ext4": "ext4", "ext2": "ext4", "xfs": "xfs", "btrfs": "btrfs"}
# Linux, fs/overlayfs/params.h, OVL_MAX_STACK.
MOST_LAYERS: Final = 500
_TRANSFORMS: Final = ("format", "mkdir", "mkfs")
_MKFS_PREFIX: Final = "X-containerd.mkfs."
# Where containerd's snapshotters keep a snapshot; `fs` is left out by the native one.
_SNAPSHOT: Final = re.compile(r"/snapshots/\d+(/fs)?/?$")
_SIZE: Final = re.compile(r"(\d+)\s?([kmgtp]?)i?b?", re.IGNORECASE)
# No path of the host contains a NUL, so these cannot be mistaken for one.
_POINT: Final = "\0mount{}"


@dataclass(frozen=True, slots=True)
class Mount:
    """containerd.types.Mount as a value."""

    type: str
    source: str
    target: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Directory:
    """A layer that is a directory of the host. A committed one never changes again, so its image can be kept."""

    path: Path
    committed: bool


@dataclass(frozen=True, slots=True)
class Image:
    """A layer that is a file system already; several files are one after the other the disk."""

    files: tuple[Path, ...]
    fstype: FsType
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NewWritable:
    """Writes go to a file that is made for this container."""


@dataclass(frozen=True, slots=True)
class SnapshotWritable:
    """Writes go to the snapshot's own image.

    `size_bytes` is 0 if it must exist; otherwise it is made, with ext4, if it does not.
    """

    path: Path
    size_bytes: int = 0
    uuid: str = ""
    options: tuple[str, ...] = ()
    fstype: FsType = "ext4"


@dataclass(frozen=True, slots=True)
class Plan:
    """The root file system: `lower` topmost first, above them what `upper` already contains, then the writes.

    With `owners`, files of `lower` are seen with those.
    """

    lower: tuple[Directory | Image, ...]
    upper: Path | None
    writable: NewWritable | SnapshotWritable | None
    whole: bool = False
    owners: Owners | None = None


def from_messages(messages: Iterable[types_pb2.Mount]) -> tuple[Mount, ...]:
    """The mounts of a CreateTaskRequest as values."""
    return tuple(Mount(m.type, m.source, m.target, tuple(m.options)) for m in messages)


def read(mounts: Sequence[Mount]) -> Plan:
    """Understand the list. Raises UnsupportedError or SpecError, which name the mount."""
    if not mounts:
        raise SpecError(
            "Create names no root file system: it is a directory, or docker has mounted it by itself",
            hint="use a snapshotter; with docker its containerd image store: "
            'set "features": {"containerd-snapshotter": true} in /etc/docker/daemon.json',
        )
    for mount in mounts:
        if mount.target.strip("/"):
            raise UnsupportedError(f"{_name(mount)}: to be mounted at {mount.target} inside the root")
        snapshotters.refuse_known(_split_type(mount.type)[1], mount.source, mount.options)
    images: list[Image | SnapshotWritable] = []
    for mount in mounts[:-1]:
        images.append(_image(mount))
    plan = _top(mounts[-1], mounts, images)
    check_count(len(plan.lower))
    return plan


def check_count(layers: int) -> None:
    """Raise UnsupportedError for more layers than an overlay can have."""
    if layers > MOST_LAYERS:
        raise UnsupportedError(
            f"{layers} layers are more than the {MOST_LAYERS} that an overlay of the kernel's can have",
            hint="squash some of the image's layers",
        )


def _top(mount: Mount, mounts: Sequence[Mount], images: Sequence[Image | SnapshotWritable]) -> Plan:
    """The last mount is the one that the container sees; those before it are what it may name."""
    transforms, kind = _split_type(mount.type)
    if "format" in transforms:
        active = [ActiveMount(m.source, m.target, _POINT.format(i)) for i, m in enumerate(mounts[:-1])]
        options = tuple(expand(option, active) for option in mount.options)
        mount = replace(mount, source=expand(mount.source, active), options=options)
    points = {_POINT.format(i): image for i, image in enumerate(images)}
    if kind == "overlay":
        return _overlay(mount, points)
    if kind == "bind":
        return _bind(mount, points)
    if len(mounts) > 1:
        raise UnsupportedError(f"{_name(mount)}: is the last of {len(mounts)} mounts and no overlay or bind")
    image = _image(mount)
    if isinstance(image, SnapshotWritable):
        return Plan((), None, image, whole=True)
    return Plan((image,), None, None)


def _overlay(mount: Mount, points: dict[str, Image | SnapshotWritable]) -> Plan:
    overlay = read_overlay(mount.options)
    lower = tuple(_lower(entry, points) for entry in overlay.lower)
    if not overlay.upper:
        return Plan(lower, None, None, owners=overlay.owners)
    if not overlay.upper.startswith("\0"):
        writable = None if overlay.read_only else NewWritable()
        return Plan(lower, _path(overlay.upper), writable, owners=overlay.owners)
    point = overlay.upper.removesuffix("/upper")
    image = points.get(point)
    if not isinstance(image, SnapshotWritable) or overlay.work != f"{point}/work" or overlay.read_only:
        raise UnsupportedError(f"overlay mount with upperdir={_shown(overlay.upper)}, workdir={_shown(overlay.work)}")
    _check_directories(overlay.directories, point)
    return Plan(lower, None, image, owners=overlay.owners)


def _bind(mount: Mount, points: dict[str, Image | SnapshotWritable]) -> Plan:
    bind = read_bind(mount.options)
    if not mount.source.startswith("\0"):
        path = _path(mount.source)
        if bind.read_only:
            return Plan((_directory(path),), None, None)
        return Plan((), path, NewWritable())
    image = points.get(mount.source.removesuffix("/upper"))
    if isinstance(image, Image) and mount.source in points and bind.read_only:
        return Plan((image,), None, None)
    if isinstance(image, SnapshotWritable) and mount.source not in points and not bind.read_only:
        _check_directories(bind.directories, mount.source.removesuffix("/upper"))
        return Plan((), None, image)
    raise UnsupportedError(f"bind mount of {_shown(mount.source)} with options {','.join(mount.options)}")


def _lower(entry: str, points: dict[str, Image | SnapshotWritable]) -> Directory | Image:
    if not entry.startswith("\0"):
        return _directory(_path(entry))
    image = points.get(entry)
    if not isinstance(image, Image):
        raise UnsupportedError(f"overlay mount with lowerdir={_shown(entry)}: not the root of a read-only image")
    return image


def _directory(path: Path) -> Directory:
    return Directory(path, committed=_SNAPSHOT.search(str(path)) is not None)


def _path(text: str) -> Path:
    if not text.startswith("/"):
        raise UnsupportedError(f"mount of {text!r}: not an absolute path")
    snapshotters.refuse_place(text)
    return Path(text)


def _check_directories(directories: Sequence[NewDirectory], point: str) -> None:
    """The guest makes `upper` and `work` itself, 0755 and root's; nothing else can be asked for."""
    for directory in directories:
        wanted = (directory.mode, directory.uid, directory.gid)
        if directory.path not in (f"{point}/upper", f"{point}/work") or wanted != (0o755, 0, 0):
            raise UnsupportedError(
                f"mount option {MKDIR_PREFIX}path={_shown(directory.path)}"
                f" with mode {directory.mode:04o}, owner {directory.uid}:{directory.gid}"
            )


def _image(mount: Mount) -> Image | SnapshotWritable:
    """A mount whose source is a file or block device with a file system in it."""
    transforms, kind = _split_type(mount.type)
    if kind == "erofs" and not transforms:
        return _erofs(mount)
    if kind in _WHOLE and (not transforms or (kind == "ext4" and transforms == {"mkfs"})):
        return _whole(mount, _WHOLE[kind])
    raise UnsupportedError(f"{_name(mount)}: no snapshotter known here mounts that", hint=snapshotters.HINT)


def _erofs(mount: Mount) -> Image:
    further: list[Path] = []
    options: list[str] = []
    for option in mount.options:
        if option.startswith("device="):
            further.append(_path(option.removeprefix("device=")))
        elif option.startswith("X-containerd.dmverity="):
            raise UnsupportedError(
                f"{_name(mount)}: protected by dm-verity, which the guest does not check",
                hint="turn dm-verity off in the erofs snapshotter's configuration",
            )
        elif option.startswith("X-containerd."):
            raise UnsupportedError(f"{_name(mount)}: option {option} is not known")
        elif option not in ("ro", "loop"):
            options.append(option)
    return Image((_path(mount.source), *further), "erofs", tuple(options))


def _whole(mount: Mount, fstype: FsType) -> Image | SnapshotWritable:
    size_bytes, uuid = 0, ""
    options: list[str] = []
    for option in mount.options:
        name, _, value = option.removeprefix(_MKFS_PREFIX).partition("=")
        if option.startswith(_MKFS_PREFIX) and name == "size":
            size_bytes = _bytes(mount, value)
        elif option.startswith(_MKFS_PREFIX) and name == "uuid":
            uuid = value
        elif option.startswith("X-containerd.") and option != f"{_MKFS_PREFIX}fs=ext4":
            raise UnsupportedError(f"{_name(mount)}: option {option} is not known")
        elif option not in ("ro", "rw", "loop") and not option.startswith(_MKFS_PREFIX):
            options.append(option)
    to_be_made = "mkfs" in _split_type(mount.type)[0]
    if to_be_made and not size_bytes:
        raise SpecError(f"{_name(mount)}: is to be made, but has no {_MKFS_PREFIX}size")
    if "ro" in mount.options:
        return Image((_path(mount.source),), fstype, tuple(options))
    return SnapshotWritable(_path(mount.source), size_bytes if to_be_made else 0, uuid, tuple(options), fstype)


def _bytes(mount: Mount, text: str) -> int:
    """A size as containerd writes it: bytes, or with a unit of 1024 (go-units, RAMInBytes)."""
    words = _SIZE.fullmatch(text)
    if words is None:
        raise SpecError(f"{_name(mount)}: {_MKFS_PREFIX}size={text} is no size")
    return int(words[1]) << (10 * " kmgtp".index(words[2].lower() or " "))


def _split_type(text: str) -> tuple[frozenset[str], str]:
    """`format/mkdir/overlay` is the type overlay after two transformations."""
    *transforms, kind = text.split("/")
    return frozenset(transforms), kind if set(transforms) <= set(_TRANSFORMS) else text


def _name(mount: Mount) -> str:
    return f"mount of type {mount.type}, source {_shown(mount.source)}"


def _shown(text: str) -> str:
    return text.replace("\0", "")
