"""What is at the source of a bind mount, and why some of it cannot be given to a virtual machine."""

import os
import stat
from pathlib import Path
from typing import Final, NamedTuple

from shim.errors import SpecError

# Character devices that the guest's kernel has under the same numbers and by these names.
_SAME_IN_THE_GUEST: Final = {
    (1, 3): "/dev/null",
    (1, 5): "/dev/zero",
    (1, 7): "/dev/full",
    (1, 8): "/dev/random",
    (1, 9): "/dev/urandom",
    (5, 0): "/dev/tty",
    (10, 200): "/dev/net/tun",
    (10, 229): "/dev/fuse",
}
# Trees that a kernel makes: the container would see the host's processes and devices, which it can do nothing with.
_OF_THE_KERNEL: Final = ("/proc", "/sys", "/dev")
# Directories of files within those.
_OF_FILES: Final = ("/dev/shm",)


class Source(NamedTuple):
    """What is there: `path` has no symbolic link in it."""

    path: Path
    status: os.stat_result

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.status.st_mode)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_block_device(self) -> bool:
        return stat.S_ISBLK(self.status.st_mode)

    @property
    def in_the_guest(self) -> str:
        """The path of the same device in the guest; empty for what the guest has not."""
        if not stat.S_ISCHR(self.status.st_mode):
            return ""
        number = self.status.st_rdev
        return _SAME_IN_THE_GUEST.get((os.major(number), os.minor(number)), "")


def find(text: object, bundle: Path, what: str) -> Source:
    """Look at a source, which is relative to the bundle if not absolute. Blocks. Raises SpecError; `what` names it."""
    if not isinstance(text, str) or not text:
        raise SpecError(f"{what}: it has no source")
    try:
        path = Path(os.path.realpath(bundle / text, strict=True))
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(f"{what}: {reason}", hint="make the source on the host first") from error
    return Source(path, status)


def refuse(source: Source, what: str) -> None:
    """Raise SpecError for what only the host's kernel can give. `what` names the mount."""
    mode = source.status.st_mode
    if stat.S_ISSOCK(mode):
        raise SpecError(
            f"{what}: it is a socket, and a virtual machine cannot connect to a socket of the host",
            hint="let the service listen on TCP, or run the container with another runtime",
        )
    if stat.S_ISFIFO(mode):
        raise SpecError(
            f"{what}: it is a FIFO, and a virtual machine cannot share a FIFO with the host",
            hint="use a file, standard input and output, or another runtime",
        )
    if stat.S_ISCHR(mode) and not source.in_the_guest:
        raise SpecError(
            f"{what}: it is a character device, which is the host's and not the machine's",
            hint="run the container with another runtime",
        )
    tree = next((tree for tree in _OF_THE_KERNEL if _is_in(source.path, tree)), "")
    if tree and (source.is_file or source.is_directory) and not any(_is_in(source.path, at) for at in _OF_FILES):
        raise SpecError(
            f"{what}: {tree} shows what the host's kernel has, and the container's kernel is another one",
            hint="leave this mount out, or run the container with another runtime",
        )


def _is_in(path: Path, tree: str) -> bool:
    return path.is_relative_to(tree)
