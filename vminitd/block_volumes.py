"""Disks of the host that a container has as volumes: file systems, or the bare block devices.

A file system is mounted here, at <directory>/disks/NAME, and crun binds it into the container's view. So it is ours to
freeze, and its end is not left to whoever in the container ends last: when it is unmounted here, all is on the disk.
A bare device is no mount at all: crun makes its node, and the container's rules for devices allow it.

Who may do what with the mount itself (ro, nosuid, noexec …) are options of the bind; all other words are the file
system's own, and the kernel refuses what it does not know.
"""

import asyncio
import errno
import json
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from vminitd.disks import Layer, devices_of
from vminitd.errors import MountError, RequestError
from vminitd.libc import MS_RDONLY, mount_by_parameters
from vminitd.rootfs import unmount_one
from vminitd.spec import DISK_SOURCE_PREFIX, Json, JsonValue, objects, parse, safe_name
from vminitd.uevent import Uevents

_RAW = "raw"
# What the kernel's short words mean here.
_MEANINGS = {
    errno.EINVAL: "there is none in it, or it does not take these options",
    errno.EUCLEAN: "it is damaged: repair it first, with its fsck",
    errno.EROFS: "it was not unmounted, and must be recovered: mount it once to be written",
}
_FILE_SYSTEMS = ("ext4", "xfs", "btrfs")
_FLAGS = (
    *("ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "atime", "noatime", "diratime", "nodiratime"),
    *("relatime", "norelatime", "strictatime", "nostrictatime", "async", "nomand"),
)
# Words that crun makes something of where it binds: of one mount, or of all below it, and where mounts go on to.
_OF_THE_MOUNT = frozenset(
    (
        *_FLAGS,
        *(f"r{flag}" for flag in _FLAGS),
        *("shared", "rshared", "slave", "rslave", "private", "rprivate", "unbindable", "runbindable", "defaults", ""),
    )
)


class BlockVolume(NamedTuple):
    """A disk that the specification's mounts name as `qemubox-disk:NAME`."""

    name: str
    disk: Layer

    @property
    def is_raw(self) -> bool:
        return self.disk.fstype == _RAW

    @property
    def is_read_only(self) -> bool:
        said = [word for word in self.disk.options if word in ("ro", "rw", "rro", "rrw")]
        return bool(said) and said[-1] in ("ro", "rro")

    def check(self) -> None:
        """Raises RequestError for what cannot be mounted."""
        if not self.is_raw and self.disk.fstype not in _FILE_SYSTEMS:
            raise RequestError(f"a block volume is {self.disk.fstype!r}, which is none of {', '.join(_FILE_SYSTEMS)}")


class BlockVolumes:
    """Those of one container, below `directory`."""

    def __init__(self, directory: str) -> None:
        self._directory = f"{directory}/disks"
        self._there: dict[str, tuple[BlockVolume, str]] = {}  # and its device's path
        self._mounted: dict[str, str] = {}

    @property
    def writable(self) -> tuple[str, ...]:
        """Where those file systems are mounted that can be written to."""
        return tuple(at for name, at in self._mounted.items() if not self._there[name][0].is_read_only)

    async def mount(self, uevents: Uevents, volumes: tuple[BlockVolume, ...], spec: bytes) -> bytes:
        """Waits for the disks, and mounts what the mounts of `spec` name; gives `spec` with the places they are at.

        After an error, what was mounted by then is left for `unmount`. Raises DeviceError, MountError, and RequestError
        for what makes no sense.
        """
        if not volumes:
            return spec
        for number, volume in enumerate(volumes):
            volume.check()
            if volume.name in [other.name for other in volumes[:number]]:
                raise RequestError(f"the block volume {volume.name!r} was sent twice")
        devices = await devices_of(uevents, [volume.disk for volume in volumes])
        self._there = {volume.name: (volume, device) for volume, device in zip(volumes, devices, strict=True)}
        mounting = asyncio.ensure_future(asyncio.to_thread(self._mount_all, parse(spec, "the specification")))
        try:
            return json.dumps(await asyncio.shield(mounting), separators=(",", ":")).encode()
        finally:
            # Never cancelled: a mount that a thread is about to make could not be found again.
            await asyncio.wait([mounting])

    def _mount_all(self, spec: Json) -> Json:
        mounts: list[JsonValue] = []
        nodes: list[Json] = []
        for entry in objects(spec, "mounts"):
            source = entry.get("source")
            if not isinstance(source, str) or not source.startswith(DISK_SOURCE_PREFIX):
                mounts.append(entry)
                continue
            name, destination = source.removeprefix(DISK_SOURCE_PREFIX), str(entry.get("destination"))
            if name not in self._there:
                raise RequestError(f"the mount at {destination} names the disk {name!r}, which was not sent")
            volume, device = self._there[name]
            if volume.is_raw:
                nodes.append(_node(destination, device, volume.disk.options))
            else:
                if name not in self._mounted:
                    self._mount_one(volume, device, destination)
                mounts.append(_bind(entry, self._mounted[name], volume.disk.options))
        return with_devices({**spec, "mounts": mounts}, nodes)

    def _mount_one(self, volume: BlockVolume, device: str, destination: str) -> None:
        at = f"{self._directory}/{safe_name(volume.name)}"
        os.makedirs(at, mode=0o755)
        words = parameters(device, volume)
        attributes = MS_RDONLY if volume.is_read_only else 0
        try:
            mount_by_parameters(volume.disk.fstype, at, words, attributes)
        except OSError as error:
            asked = ",".join(volume.disk.options) or "defaults"
            meaning = _MEANINGS.get(error.errno or 0)
            raise MountError(
                f"cannot mount the disk for {destination} as {volume.disk.fstype} with {asked}: {error.strerror}"
                f"{f' ({meaning})' if meaning else ''}"
            ) from error
        self._mounted[volume.name] = at

    def unmount(self) -> list[str]:
        """Unmounts what is mounted, last first. Blocks. Gives what had to be detached because it is still in use.

        Raises MountError for what is mounted still; all others are not.
        """
        detached = []
        failure: MountError | None = None
        for name, at in reversed([*self._mounted.items()]):
            try:
                if unmount_one(at):
                    detached.append(at)
                del self._mounted[name]
            except OSError as error:
                failure = MountError(f"cannot unmount {at}: {error.strerror}")
                failure.__cause__ = error
        if failure is not None:
            raise failure
        return detached


def parameters(device: str, volume: BlockVolume) -> list[tuple[str, str]]:
    """What fsconfig(2) is told, for the file system itself."""
    found = [("source", device)]
    if volume.is_read_only:
        found.append(("ro", ""))
    for word in volume.disk.options:
        if word not in _OF_THE_MOUNT:
            key, _, value = word.partition("=")
            found.append((key, value))
    return found


def with_devices(spec: Json, nodes: Sequence[Json]) -> Json:
    """`spec` with the nodes of block devices, which its rules for devices allow."""
    if not nodes:
        return spec
    linux = spec.get("linux")
    linux = dict(linux) if isinstance(linux, dict) else {}
    resources = linux.get("resources")
    resources = dict(resources) if isinstance(resources, dict) else {}
    rules = [_rule(node) for node in nodes]
    resources["devices"] = [*objects(resources, "devices"), *rules]
    shown: list[JsonValue] = [{key: node[key] for key in node if key != "access"} for node in nodes]
    linux["devices"] = [*objects(linux, "devices"), *shown]
    linux["resources"] = resources
    return {**spec, "linux": linux}


def _rule(node: Json) -> Json:
    return {"allow": True, "type": "b", "major": node["major"], "minor": node["minor"], "access": node["access"]}


def _bind(entry: Json, at: str, options: Iterable[str]) -> Json:
    words: list[JsonValue] = ["bind", *(word for word in options if word in _OF_THE_MOUNT)]
    return {**entry, "type": "bind", "source": at, "options": words}


def _node(destination: str, device: str, options: Iterable[str]) -> Json:
    """A device node as runtime-spec has it (config-linux.md, "Devices"), and what may be done with it."""
    number = os.stat(device).st_rdev
    said = dict(word.split("=", 1) for word in options if "=" in word)
    try:
        mode, uid, gid = int(said.get("mode", "600"), 8), int(said.get("uid", "0")), int(said.get("gid", "0"))
    except ValueError as error:
        raise RequestError(f"the disk for {destination}: {error}") from error
    return {
        "path": destination,
        "type": "b",
        "major": os.major(number),
        "minor": os.minor(number),
        "fileMode": mode & 0o777,
        "uid": uid,
        "gid": gid,
        "access": "rm" if "ro" in options else "rwm",
    }
