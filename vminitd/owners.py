"""Layers seen with other owners, as a container in a user namespace needs them (mount_setattr(2), "ID-mapped mounts").

The kernel takes the maps from a user namespace, and there is one only with a process in it: one is made for that, and
has ended when the maps have been taken.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from vminitd.libc import unshare_user


class Owners(NamedTuple):
    """Maps of user and group numbers, as user_namespaces(7) has the text of uid_map and gid_map."""

    uid_map: str
    gid_map: str


@contextmanager
def user_namespace(owners: Owners) -> Iterator[int]:
    """A descriptor of a user namespace with these maps. Blocks. Raises OSError where the kernel refuses them."""
    ready, told = os.pipe()
    pid = os.fork()
    if not pid:
        _be_in_one(told)
    try:
        os.close(told)
        refused = os.read(ready, 1)
        if refused != b"\0":
            raise OSError(refused[0] if refused else 0, os.strerror(refused[0]) if refused else "it has ended")
        for name, text in (("uid_map", owners.uid_map), ("gid_map", owners.gid_map)):
            with open(f"/proc/{pid}/{name}", "wb", buffering=0) as file:
                file.write(text.encode())
        namespace = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready)
        with suppress(ProcessLookupError, ChildProcessError):  # it has been reaped with all others (reaper.py)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    try:
        yield namespace
    finally:
        os.close(namespace)


def _be_in_one(told: int) -> None:
    """What the process does: it says whether it is there, and waits for its end."""
    try:
        unshare_user()
        os.write(told, b"\0")
        signal.pause()
    except OSError as error:
        os.write(told, bytes([error.errno or 255]))
    finally:
        os._exit(0)
