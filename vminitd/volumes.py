"""The share of the host's directories and files: a virtiofs, in which each volume is an entry by its name.

    <directory>/volumes    the share

crun binds what the specification's mounts name as `qemubox-volume:NAME` from there, with the mounts' own options. The
share's root is read-only, and so is a read-only volume in it: the host sees to that. A volume of another file system
than the others is a mount below it (the kernel makes it when somebody looks, and takes it away with the share).
"""

import asyncio
import os

from vminitd import deadlines
from vminitd.errors import MountError
from vminitd.libc import mount
from vminitd.rootfs import unmount_one
from vminitd.uevent import Uevents

_DEVICES = "/sys/fs/virtiofs"


class Share:
    """The share of one container, which may have none, below `directory`."""

    def __init__(self, directory: str) -> None:
        self.path = f"{directory}/volumes"
        self._mounted = False

    async def mount(self, uevents: Uevents, tag: str) -> None:
        """Mounts the share once its device is there; nothing to do for an empty tag. Raises DeviceError or MountError.

        A caller that is cancelled while the mount is made could not take it back: it must not be.
        """
        if not tag:
            return
        await uevents.until(lambda: find(tag), f"the virtiofs device {tag!r}", deadlines.DISK)
        await asyncio.to_thread(self._mount, tag)

    def _mount(self, tag: str) -> None:
        os.mkdir(self.path, 0o700)
        try:
            mount(tag, self.path, "virtiofs")
        except OSError as error:
            raise MountError(f"cannot mount the volumes: {error.strerror}") from error
        self._mounted = True

    def unmount(self) -> None:
        """Unmounts the share, if it is mounted. Blocks; call it in a thread. Raises MountError."""
        try:
            if self._mounted:
                unmount_one(self.path)
                self._mounted = False
            if os.path.isdir(self.path):
                os.rmdir(self.path)
        except OSError as error:
            raise MountError(f"cannot unmount the volumes: {error.strerror}") from error


def find(tag: str, devices: str = _DEVICES) -> str | None:
    """The kernel's name of the virtiofs device with this tag; None if it is not there (yet)."""
    try:
        names = os.listdir(devices)
    except FileNotFoundError:
        return None
    for name in names:
        try:
            with open(f"{devices}/{name}/tag", "rb") as file:
                if file.read().rstrip(b"\n") == tag.encode():
                    return name
        except OSError:  # it went while we looked
            continue
    return None
