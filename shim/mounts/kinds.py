"""The values that a specification's mounts become.

The guest's specification names each by a source of its own: `qemubox-file:NAME`, `qemubox-volume:NAME`,
`qemubox-disk:NAME` (api/guest.proto, CreateRequest).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

# Bytes that all files copied into one container may have together: they travel in one message of at most 4 MiB.
FILES_LIMIT: Final = 1 << 20
FILE_SOURCE_PREFIX: Final = "qemubox-file:"
VOLUME_SOURCE_PREFIX: Final = "qemubox-volume:"
DISK_SOURCE_PREFIX: Final = "qemubox-disk:"
# Files of names, which clients mount read-write where the container only wants to read them: it gets copies (nerdctl,
# CRI).
NAMES: Final = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")

BlockType = Literal["ext4", "xfs", "btrfs", "raw"]


@dataclass(frozen=True, slots=True)
class HostFile:
    """A small file of the host whose content goes into the container."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Volume:
    """A directory of the host that the container shares with it, or a file where `is_file`.

    `source` is absolute, and no part of it is a symbolic link. With `recursive`, what is mounted below it is shared,
    too, all of it as `read_only` says. With `follows`, so is what the host mounts there later (slave propagation).
    """

    name: str
    source: Path
    read_only: bool
    recursive: bool
    is_file: bool
    follows: bool = False


@dataclass(frozen=True, slots=True)
class BlockVolume:
    """A block device, or a file that is the image of one, which becomes a disk of the machine.

    The guest mounts its file system; of one that is "raw" the container has the block device itself. `source` is as
    that of a Volume. `options` are those of the file system, `destination` is for messages.
    """

    name: str
    source: Path
    fstype: BlockType
    read_only: bool
    options: tuple[str, ...] = ()
    destination: str = ""
