"""A container's root file system: its disks mounted, put together at one place, and taken apart again.

    <directory>/mnt/<i>    lower layer i, topmost first
    <directory>/mnt/rw     the writable layer
    <directory>/rootfs     what the container sees

Taken apart in strictly the reverse order. A file system that is still in use is detached instead, after what was
written has reached its disk, and that is reported: the disk must not be unplugged as if it were free.
"""

import asyncio
import errno
import os
from collections.abc import Sequence
from typing import NamedTuple

from vminitd import log
from vminitd.disks import Layer, devices_of, mount_layer
from vminitd.errors import MountError, RequestError, StateError
from vminitd.libc import MNT_DETACH, MS_BIND, mount, replace_with_mapped, umount
from vminitd.overlay import mount_overlay
from vminitd.owners import Owners, user_namespace
from vminitd.uevent import Uevents


class Plan(NamedTuple):
    """What the shim wants, as in guest.proto's Rootfs. The lowest `mapped` layers are seen with other owners."""

    lower: tuple[Layer, ...]
    writable: Layer | None
    whole: bool
    mapped: int = 0
    owners: Owners = Owners("", "")

    def check(self) -> None:
        """Raises RequestError for what cannot be put together."""
        if self.writable is None and not self.lower:
            raise RequestError("the root file system has no layer at all")
        if self.whole and (self.writable is None or self.lower):
            raise RequestError("a whole root file system is exactly one writable layer")
        if self.mapped > len(self.lower):
            raise RequestError(f"{self.mapped} of {len(self.lower)} layers are to have other owners")


class Rootfs:
    """The mounts of one container, below `directory`."""

    def __init__(self, directory: str) -> None:
        self.path = f"{directory}/rootfs"
        self._layers = f"{directory}/mnt"
        self._mounted: list[str] = []
        self._writable = ""
        self._whole = False
        self._lower: list[str] = []

    @property
    def writable(self) -> str:
        """Where the writable layer's file system is mounted; empty if there is none."""
        return self._writable

    def upper(self) -> str:
        """Where all that the container writes is, upon the lower layers, if there are any. Raises StateError."""
        if not self._writable:
            raise StateError("the root file system is read-only, or not mounted: it has no changes")
        if self._whole:
            raise StateError("the writable layer is all of the root file system: what is a change in it nobody knows")
        return f"{self._writable}/upper"

    def lower(self) -> list[str]:
        """Where the lower layers are mounted, topmost first."""
        return self._lower

    async def mount(self, uevents: Uevents, plan: Plan) -> None:
        """Mounts all of it. After an error, what was mounted by then is left for `unmount`.

        Raises RequestError, DeviceError or MountError.
        """
        plan.check()
        layers = [(layer, f"{self._layers}/{number}") for number, layer in enumerate(plan.lower)]
        if plan.writable is not None:
            layers.append((plan.writable, f"{self._layers}/rw"))
        devices = await devices_of(uevents, [layer for layer, _ in layers])
        # One thread's work and not one for each step: a clone of a template pays for every switch between them.
        await asyncio.to_thread(self._mount_all, layers, devices, plan)
        if plan.writable is not None:
            self._writable, self._whole = layers[-1][1], plan.whole
        self._lower = [target for _, target in layers[: len(plan.lower)]]

    def _mount_all(self, layers: Sequence[tuple[Layer, str]], devices: Sequence[str], plan: Plan) -> None:
        """Nothing else looks at what is mounted until this is over."""
        self._read_only = len(plan.lower)
        os.makedirs(self.path, mode=0o755)
        os.mkdir(self._layers, 0o755)
        for (layer, target), device in zip(layers, devices, strict=True):
            os.mkdir(target, 0o755)
            mount_layer(layer, device, target)
            self._mounted.append(target)
        if plan.mapped:
            self._give(plan.owners, [target for _, target in layers[: len(plan.lower)]][-plan.mapped :])
        writable = next((target for _, target in layers if target.endswith("/rw")), "")
        join(self.path, [target for _, target in layers if target != writable], writable, whole=plan.whole)
        self._mounted.append(self.path)

    def _give(self, owners: Owners, targets: Sequence[str]) -> None:
        try:
            with user_namespace(owners) as namespace:
                for target in targets:
                    replace_with_mapped(target, namespace)
        except OSError as error:
            asked = f"{owners.uid_map!r} and {owners.gid_map!r}"
            raise MountError(f"cannot give the layers the owners {asked}: {error.strerror}") from error

    def unmount(self, *, layers: bool = True) -> list[str]:
        """Unmounts what is mounted, in reverse, and removes the mount points. Blocks; call it in a thread.

        Without `layers` only what can be written to: the others are read-only, and a hundred take a third of a second.
        Gives what had to be detached because it is still in use. Raises MountError for what is mounted still.
        """
        detached: list[str] = []
        while len(self._mounted) > (0 if layers else self._read_only):
            target = self._mounted[-1]
            try:
                if unmount_one(target):
                    detached.append(target)
            except OSError as error:
                raise MountError(f"cannot unmount {target}: {error.strerror}") from error
            self._mounted.pop()
            os.rmdir(target)
        self._writable = ""
        return detached


def join(target: str, lower: Sequence[str], writable: str, *, whole: bool) -> None:
    """Makes `target` the root file system of these mounted layers. Raises MountError."""
    try:
        if whole:
            mount(writable, target, "", MS_BIND)
        elif writable:
            upper, work = f"{writable}/upper", f"{writable}/work"
            _make_upper(upper, lower)
            os.makedirs(work, mode=0o755, exist_ok=True)
            if lower:
                mount_overlay(target, lower, upper, work)
            else:
                mount(upper, target, "", MS_BIND)
        elif len(lower) == 1:
            mount(lower[0], target, "", MS_BIND)
        else:
            mount_overlay(target, lower)
    except OSError as error:
        raise MountError(f"cannot make the root file system of {len(lower)} layers: {error.strerror}") from error


def _make_upper(upper: str, lower: Sequence[str]) -> None:
    """The upper directory is the root that the container sees: a new one takes after the topmost layer's."""
    if os.path.isdir(upper):
        return
    os.mkdir(upper, 0o755)
    if lower:
        status = os.stat(lower[0])
        os.chown(upper, status.st_uid, status.st_gid)
        os.chmod(upper, status.st_mode & 0o7777)


def unmount_one(target: str) -> bool:
    """Unmounts `target`; True if it was in use and had to be detached. Raises OSError."""
    try:
        umount(target)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        os.sync()
        umount(target, MNT_DETACH)
        log.warning("still in use, detached", path=target)
        return True
    return False
