"""A container's directory on the guest's tmpfs.

/run/qemubox/containers/<name>/
    mnt/, rootfs/    the root file system (`rootfs`)
    disks/           file systems that are volumes (`block_volumes`)
    volumes/         the share of the host's directories and files (`volumes`)
    files/           files that the shim sent (`spec`)
    bundle/          config.json, for crun
    exec/            what crun is told of further processes and new limits
"""

import itertools
import os
from collections.abc import Callable
from contextlib import suppress


class ContainerDirectory:
    """Paths in it, what is written there, and its removal.

    Specifications hold secrets: all is root's alone, but for the way to the root file system and to file systems, which
    crun takes as the root of a user namespace, where the container has one.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.bundle = f"{path}/bundle"
        self.files = f"{path}/files"
        self._exec = f"{path}/exec"
        self._numbers = itertools.count(1)

    def make(self) -> None:
        """Raises OSError if it is there already."""
        os.mkdir(self.path, 0o711)
        for directory in (self.bundle, self._exec):
            os.mkdir(directory, 0o700)

    def new_file(self) -> str:
        """A new place for crun to read an OCI Process or LinuxResources."""
        return f"{self._exec}/{next(self._numbers)}.json"

    def remove(self) -> None:
        """Removes all of it. Never looks into a mount point: one that is still mounted is refused (EBUSY)."""
        for directory in (self.bundle, self._exec, self.files):
            _remove_flat(directory, os.unlink)
        for mount_points in ("mnt", "disks"):
            _remove_flat(f"{self.path}/{mount_points}", os.rmdir)
        for directory in (f"{self.path}/rootfs", self.path):
            with suppress(FileNotFoundError):
                os.rmdir(directory)


def write_private(path: str, content: bytes) -> None:
    """Writes a new file that only root can read."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)


def remove_if_there(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _remove_flat(directory: str, remove: Callable[[str], None]) -> None:
    with suppress(FileNotFoundError):
        for name in os.listdir(directory):
            remove(f"{directory}/{name}")
        os.rmdir(directory)
