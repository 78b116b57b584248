"""What a layer's file system is mounted with: mount(8)'s words into mount(2)'s flags and data. Pure."""

from collections.abc import Iterable

from vminitd.errors import RequestError
from vminitd.libc import (
    MS_NOATIME,
    MS_NODEV,
    MS_NODIRATIME,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_RELATIME,
    MS_SYNCHRONOUS,
)

_FLAGS = {
    "ro": MS_RDONLY,
    "nosuid": MS_NOSUID,
    "nodev": MS_NODEV,
    "noexec": MS_NOEXEC,
    "sync": MS_SYNCHRONOUS,
    "noatime": MS_NOATIME,
    "nodiratime": MS_NODIRATIME,
    "relatime": MS_RELATIME,
}
# Words that only say what is so anyway, or are the business of mount(8) on the host.
_IDLE = frozenset({"", "rw", "defaults", "loop", "suid", "dev", "exec", "async"})


def mount_options(fstype: str, options: Iterable[str]) -> tuple[int, str]:
    """Flags and data for a layer of type `fstype`.

    erofs is read-only. The others, where they are written to, give freed blocks back to the host's sparse file
    (`discard`), unless they are told otherwise. Raises RequestError for another type.
    """
    if fstype not in ("erofs", "ext4", "xfs", "btrfs"):
        raise RequestError(f"a layer's file system is {fstype!r}, which is none of erofs, ext4, xfs and btrfs")
    flags, data = 0, []
    for option in options:
        if option in _FLAGS:
            flags |= _FLAGS[option]
        elif option not in _IDLE:
            data.append(option)
    if fstype == "erofs":
        flags |= MS_RDONLY
    elif not flags & MS_RDONLY and not {"discard", "nodiscard"}.intersection(data):
        data.append("discard")
    return flags, ",".join(data)
