"""Each mount of a specification becomes one for the guest, or is refused by name.

Several at one place, or one within another, are no mistake: they are mounted in their order, and the later one covers
the earlier. Nothing is opened here, only looked at.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

from shim.errors import SpecError, UnsupportedError
from shim.json_types import Json, JsonValue
from shim.mounts import options, sources
from shim.mounts.kinds import (
    DISK_SOURCE_PREFIX,
    FILE_SOURCE_PREFIX,
    FILES_LIMIT,
    NAMES,
    VOLUME_SOURCE_PREFIX,
    BlockType,
    BlockVolume,
    HostFile,
    Volume,
)
from shim.mounts.sources import Source

# File systems that a kernel makes out of nothing, so the guest's does as well. What the others show lies on the host.
_FILE_SYSTEMS_OF_THE_KERNEL: Final = (
    *("proc", "sysfs", "tmpfs", "ramfs", "devpts", "mqueue", "cgroup", "cgroup2", "hugetlbfs"),
    *("debugfs", "tracefs", "securityfs", "configfs", "fusectl", "bpf", "binfmt_misc"),
)
_ON_DISKS: Final = ("ext4", "xfs", "btrfs", "raw")
# Mounts a file as a disk: every block volume is one.
_IDLE_ON_DISKS: Final = ("loop", "")
_RAW_WORDS: Final = ("ro", "rw", "defaults", "")
_RAW_VALUES: Final = ("mode=", "uid=", "gid=")


@dataclass(slots=True)
class GuestMounts:
    """The mounts for the guest's specification, and what of the host they name."""

    mounts: list[Json] = field(default_factory=list)
    files: list[HostFile] = field(default_factory=list)
    volumes: list[Volume] = field(default_factory=list)
    block_volumes: list[BlockVolume] = field(default_factory=list)
    files_bytes: int = 0


def classify(mounts: Iterable[Json], bundle: Path) -> GuestMounts:
    """Understand the mounts of a specification, whose bundle is in `bundle`. Blocks while it looks at sources.

    Raises SpecError for what a virtual machine cannot give, UnsupportedError for what is not there yet; each names
    source and destination.
    """
    found = GuestMounts()
    for mount in mounts:
        found.mounts.append(_guest_mount(mount, bundle, found))
    return found


def _guest_mount(mount: Json, bundle: Path, found: GuestMounts) -> Json:
    words, kind = options.words_of(mount), mount.get("type")
    if not isinstance(mount.get("destination"), str):
        raise SpecError(f"the mount of {mount.get('source')} at {mount.get('destination')}: that is no place")
    what = f"cannot mount {mount.get('source')} at {mount['destination']}"
    if mount.get("uidMappings") or mount.get("gidMappings") or any(w.partition("=")[0] in options.IDMAP for w in words):
        raise UnsupportedError(
            f"{what}: mapping the owners of a mount's files (idmap) is not supported yet",
            hint="give the files the owners that the container's user namespace has on the host",
        )
    if options.is_bind(kind, words):
        return _bind(mount, words, sources.find(mount.get("source"), bundle, what), found, what)
    if kind in _ON_DISKS:
        source = sources.find(mount.get("source"), bundle, what)
        return _on_a_disk(mount, words, source, cast("BlockType", kind), found, what)
    if kind in _FILE_SYSTEMS_OF_THE_KERNEL:
        return mount
    raise SpecError(
        f"{what}: of the type {kind}, which lies on the host, a virtual machine cannot mount it",
        hint=f"bind a directory of the host, or name a disk or its image with the type {', '.join(_ON_DISKS)}",
    )


def _bind(mount: Json, words: tuple[str, ...], source: Source, found: GuestMounts, what: str) -> Json:
    _refuse_shared(words, what)
    _check_bind(words, what)
    sources.refuse(source, what)
    if source.in_the_guest:
        return {**mount, "source": source.in_the_guest}
    if source.is_block_device:
        if "nodev" in words:
            raise SpecError(f"{what}: it is a block device, which nobody can open with nodev", hint="leave nodev out")
        flags = tuple(word for word in words if word in ("ro", "rw"))
        return _on_a_disk(mount, flags, source, "raw", found, what)
    read_only = options.is_read_only(words)
    if source.is_file and (read_only or mount["destination"] in NAMES):
        size = source.status.st_size
        if found.files_bytes + size <= FILES_LIMIT:
            file = HostFile(str(len(found.files)), Path(str(mount["source"])) if _absolute(mount) else source.path)
            found.files.append(file)
            found.files_bytes += size
            return {**mount, "source": f"{FILE_SOURCE_PREFIX}{file.name}"}
    volume = Volume(
        name=str(len(found.volumes)),
        source=source.path,
        read_only=read_only,
        recursive="rbind" in words,
        is_file=source.is_file,
        follows=not options.SLAVE.isdisjoint(words),
    )
    found.volumes.append(volume)
    return {**mount, "source": f"{VOLUME_SOURCE_PREFIX}{volume.name}"}


def _absolute(mount: Json) -> bool:
    return str(mount["source"]).startswith("/")


def _refuse_shared(words: tuple[str, ...], what: str) -> None:
    shared = options.SHARED.intersection(words)
    if shared:
        raise SpecError(
            f"{what}: with the option {', '.join(sorted(shared))}, and mounts of a virtual machine cannot appear on"
            " the host",
            hint="use rprivate or rslave",
        )


def _check_bind(words: tuple[str, ...], what: str) -> None:
    """The kernel ignores what it does not know here; runc refuses it, and so do we."""
    for word in words:
        if word not in options.WORDS:
            raise SpecError(f"{what}: a bind mount has no option {word!r}", hint="leave it out")


def _on_a_disk(
    mount: Json, words: tuple[str, ...], source: Source, kind: BlockType, found: GuestMounts, what: str
) -> Json:
    if not source.is_file and not source.is_block_device:
        raise SpecError(
            f"{what}: of the type {kind}, it must be a block device or a file that is the image of one",
            hint="bind it, if it is a directory",
        )
    if any(volume.source == source.path for volume in found.block_volumes):
        raise SpecError(f"{what}: another mount of the same container has that disk already", hint="name it once")
    kept = tuple(word for word in words if word not in _IDLE_ON_DISKS)
    if kind == "raw":
        kept = _raw(kept, source, what)
    else:
        _refuse_shared(kept, what)
    volume = BlockVolume(
        name=str(len(found.block_volumes)),
        source=source.path,
        fstype=kind,
        read_only=options.is_read_only(words),
        options=kept,
        destination=str(mount["destination"]),
    )
    found.block_volumes.append(volume)
    listed: list[JsonValue] = [*kept]
    return {**mount, "type": kind, "source": f"{DISK_SOURCE_PREFIX}{volume.name}", "options": listed}


def _raw(words: tuple[str, ...], source: Source, what: str) -> tuple[str, ...]:
    """Who may open the container's device node is said by options, or else as it is on the host."""
    for word in words:
        if word not in _RAW_WORDS and not word.startswith(_RAW_VALUES):
            raise SpecError(f"{what}: a raw disk has no option {word!r}", hint="known are ro, rw, mode=, uid= and gid=")
    status = source.status
    own = {"mode": f"{status.st_mode & 0o666:o}", "uid": str(status.st_uid), "gid": str(status.st_gid)}
    said = {word.partition("=")[0] for word in words}
    return (*words, *(f"{key}={value}" for key, value in own.items() if key not in said))
