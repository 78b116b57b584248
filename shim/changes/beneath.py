"""What is beneath a directory, and nothing else: openat2(2), with RESOLVE_BENEATH and its like.

Names come from a guest. No symbolic link is followed, no mount crossed, and no way leads up and out. Linux 5.6.
"""

import errno
import os
import stat
from typing import Final, TypeAlias

from archive import beneath

# Names from the directory on; those of the directory itself are none. In the order of such tuples, a directory comes
# just before what is in it.
Names: TypeAlias = tuple[bytes, ...]

_RESOLVE: Final = beneath.NO_XDEV | beneath.NO_MAGICLINKS | beneath.NO_SYMLINKS | beneath.BENEATH
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# A path has 4096 bytes with the zero behind it (PATH_MAX).
_MOST_PATH: Final = 4095
# Of a deep tree no more directories than so many are open.
_MOST_OPEN: Final = 32


def open_beneath(directory: int, path: bytes, flags: int = _DIRECTORY) -> int:
    """A descriptor of what `path` names beneath an open directory. Raises OSError."""
    return beneath.openat2(directory, path, flags, resolve=_RESOLVE)


class Tree:
    """The tree in the directory `root`, which is open, and is closed with this."""

    def __init__(self, root: int) -> None:
        # Directories that are open, each beneath the one before it.
        self._open: list[tuple[Names, int]] = [((), root)]

    def close(self) -> None:
        """Close all of it. A second call does nothing."""
        while self._open:
            os.close(self._open.pop()[1])

    def at(self, directory: Names) -> int:
        """A directory of the tree, open at least until the next call. Raises OSError."""
        while directory[: len(self._open[-1][0])] != self._open[-1][0]:
            os.close(self._open.pop()[1])
        names, fd = self._open[-1]
        if names == directory:
            return fd
        fd = self._descend(fd, directory[len(names) :])
        if len(self._open) == _MOST_OPEN:
            os.close(self._open.pop(1)[1])
        self._open.append((directory, fd))
        return fd

    def _descend(self, start: int, names: Names) -> int:
        fd = start
        while names:
            path, count = names[0], 1
            for name in names[1:]:
                if len(path) + 1 + len(name) > _MOST_PATH:
                    break
                path, count = path + b"/" + name, count + 1
            try:
                below = open_beneath(fd, path)
            finally:
                if fd != start:
                    os.close(fd)
            fd, names = below, names[count:]
        return fd

    def status(self, names: Names) -> os.stat_result | None:
        """What is at `names`, itself and not what it leads to; None if nothing is. Raises OSError."""
        try:
            return os.stat(names[-1], dir_fd=self.at(names[:-1]), follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:  # a symbolic link is where a directory would be
                return None
            raise

    def remove(self, names: Names) -> bool:
        """Remove what is at `names`, and all that is in it; whether anything was there. Raises OSError.

        Nothing is removed of what is mounted in there.
        """
        status = self.status(names)
        if status is None:
            return False
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(names[-1], dir_fd=self.at(names[:-1]))
            return True
        pending: list[list[bytes]] = [[names[-1]]]
        path = list(names[:-1])
        while pending:
            if not pending[-1]:
                pending.pop()
                if pending:
                    name = path.pop()
                    os.rmdir(name, dir_fd=self.at(tuple(path)))
                continue
            name = pending[-1].pop()
            try:
                os.unlink(name, dir_fd=self.at(tuple(path)))
            except IsADirectoryError:
                path.append(name)
                pending.append([os.fsencode(each) for each in os.listdir(self.at(tuple(path)))])
        return True
