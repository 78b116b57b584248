"""What the mounts of a specification are to a container in a machine of its own.

    kinds.py     the values: a small file that is copied, a volume, a block volume
    options.py   pure: the words of a mount's options
    sources.py   what is at a bind mount's source, and why some of it cannot be given
    devices.py   block devices that are listed as devices become mounts
    classify.py  each mount becomes one of those, or one of the guest kernel's own, or is refused by name

https://github.com/opencontainers/runtime-spec/blob/main/config.md#mounts
"""

from shim.mounts.classify import GuestMounts, classify
from shim.mounts.kinds import (
    DISK_SOURCE_PREFIX,
    FILE_SOURCE_PREFIX,
    FILES_LIMIT,
    NAMES,
    VOLUME_SOURCE_PREFIX,
    BlockVolume,
    HostFile,
    Volume,
)

__all__ = (
    "DISK_SOURCE_PREFIX",
    "FILES_LIMIT",
    "FILE_SOURCE_PREFIX",
    "NAMES",
    "VOLUME_SOURCE_PREFIX",
    "BlockVolume",
    "GuestMounts",
    "HostFile",
    "Volume",
    "classify",
)
