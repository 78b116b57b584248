"""A mark on a writable image: a container may have written to it what has not come back to its snapshot's directory.

Set when the container begins to run, taken away when all has come back at its end. So whoever finds it on the image of
a container that does not run knows that the directory is not up to date: `qemubox commit`, for one. It is an extended
attribute, goes where the file goes, and is root's. (A file system without such attributes has no marks.)
"""

import contextlib
import os
from pathlib import Path
from typing import Final

_NAME: Final = "trusted.qemubox.pending"


def mark(image: int) -> None:
    """From now on its content may be newer than the directory. `image` is an open descriptor."""
    with contextlib.suppress(OSError):
        os.setxattr(image, _NAME, b"")


def clear(image: int) -> None:
    """All that was written to it has come back."""
    with contextlib.suppress(OSError):
        os.removexattr(image, _NAME)


def is_marked(image: Path) -> bool:
    """Whether there is such an image, and it has the mark."""
    try:
        return _NAME in os.listxattr(image)
    except OSError:
        return False
