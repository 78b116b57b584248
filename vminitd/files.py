"""The small files that the shim sends for a container, such as /etc/resolv.conf: crun binds them into its view."""

import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from vminitd.errors import KernelError, RequestError, UnknownError
from vminitd.spec import safe_name

_MOST_BYTES = 2 << 20  # of one call: twice what the shim takes from a host


class File(NamedTuple):
    """A file that a mount of the specification names as `qemubox-file:NAME`.

    The container can do without one that is dispensable.
    """

    name: str
    content: bytes
    mode: int
    uid: int
    gid: int
    dispensable: bool = False


class Files:
    """Those of one container, below `directory`."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._paths: dict[str, str] = {}

    def write(self, files: Iterable[File]) -> Mapping[str, str]:
        """Writes `files` into the directory, which is made; gives their paths by name.

        Raises RequestError for a name that comes twice, OSError where writing fails.
        """
        os.makedirs(self._directory, mode=0o711)  # the root of a user namespace must come to them
        for file in files:
            if file.name in self._paths:
                raise RequestError(f"the file {file.name!r} was sent twice")
            path = f"{self._directory}/{safe_name(file.name)}"
            self._paths[file.name] = path
            _put(file, path, os.O_CREAT | os.O_EXCL)
        return self._paths

    def rewrite(self, files: Iterable[File]) -> None:
        """Gives files that were written other content, mode and owner. They stay the same files: they are bound.

        Raises UnknownError for one that was not sent before, RequestError for more than 2 MiB in all, and KernelError
        where writing fails. Before the first is written, all names and the size are looked at.
        """
        files = list(files)
        for file in files:
            if file.name not in self._paths:
                raise UnknownError(f"the container was made without a file {file.name!r}")
        size = sum(len(file.content) for file in files)
        if size > _MOST_BYTES:
            raise RequestError(f"{size} bytes of files are more than {_MOST_BYTES}")
        for file in files:
            try:
                _put(file, self._paths[file.name], 0)
            except OSError as error:
                raise KernelError(f"the file {file.name!r} cannot be rewritten: {error.strerror}") from error


def has_place(root: str, destination: str) -> bool:
    """Whether the root file system at `root` has a regular file at `destination`, with no symbolic link on the way.

    Where it can be written to, crun makes a place for a mount; nobody can in one that is read-only.
    """
    path = root
    for name in filter(None, destination.split("/")):
        path = f"{path}/{name}"
        if os.path.islink(path):
            return False
    return os.path.isfile(path)


def _put(file: File, path: str, flags: int) -> None:
    """All of the content, and then no more: who reads meanwhile never finds the file empty."""
    with open(os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, 0o600), "wb", buffering=0) as out:
        left = memoryview(file.content)
        while left:
            left = left[out.write(left) :]
        out.truncate(len(file.content))
        os.fchown(out.fileno(), file.uid, file.gid)
        os.fchmod(out.fileno(), file.mode & 0o7777)
