"""What the kernel kills for want of memory, told when it happens.

It counts the processes that it kills in a cgroup's memory.events, before it kills them, and says of each change of that
file, though not more often than every 10 ms (kernel/cgroup/cgroup.c, cgroup_file_notify). What is counted there
besides, as often as a container comes to its limit, interests nobody: it is looked at ten times a second at most.
"""

import asyncio
import functools
import os

from vminitd.cgroup import changed_until, parse_flat
from vminitd.errors import UnknownError

_PAUSE_S = 0.1
_SIZE = 4096


async def more_kills(directory: str, known: int) -> int:
    """How many processes of the cgroup in `directory` have been killed, once those are more than `known`.

    Raises UnknownError if there is no such cgroup (any more).
    """
    path = f"{directory}/memory.events"
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UnknownError(f"cannot open {path}: {error.strerror}") from error
    try:
        seen = _read(file, path)
        while _kills(seen) <= known:
            await changed_until(file, functools.partial(_is_other, file, path, seen))
            seen = _read(file, path)
            if _kills(seen) <= known:
                await asyncio.sleep(_PAUSE_S)
                seen = _read(file, path)
        return _kills(seen)
    finally:
        os.close(file)


def _kills(events: str) -> int:
    return parse_flat(events).get("oom_kill", 0)


def _is_other(file: int, path: str, seen: str) -> bool:
    return _read(file, path) != seen


def _read(file: int, path: str) -> str:
    try:
        return os.pread(file, _SIZE, 0).decode()
    except OSError as error:
        raise UnknownError(f"cannot read {path}: {error.strerror}") from error
