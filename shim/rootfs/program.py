"""Runs one of the host's file system tools to its end.

The tool dies with the shim: setpriv(1) has the kernel kill it when the thread that
started it ends, which is the main thread (PR_SET_PDEATHSIG). That needs no code between
fork and exec, where a process with threads must not run any.
"""

import asyncio
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shim import untrusted
from shim.errors import HostError, MissingPartError, ResourceError

# How much of standard error is kept: its end.
_STDERR_LIMIT: Final = 16384
# How a full disk, quota or file size limit reads in the words of strerror(3), which both tools print.
_NO_ROOM: Final = ("No space left on device", "Disk quota exceeded", "File too large")


@dataclass(frozen=True, slots=True)
class Tool:
    """A program: a path, or a name to look for in PATH; the Debian package it comes in; its time limit.

    Its environment is `environment`, PATH, and no language.
    """

    program: str
    package: str
    timeout_s: float
    environment: tuple[tuple[str, str], ...] = ()


async def run(tool: Tool, arguments: Sequence[str], *, task: str, keep_open: Sequence[int] = ()) -> None:
    """Run `tool` and wait for it to succeed. `task` says what for, as in "make an image of /x".

    The descriptors in `keep_open` are open in the tool too. Raises MissingPartError, ResourceError
    when the disk is full, HostError with the tool's last words otherwise; it does not run any more then.
    """
    words = [_found("setpriv", "util-linux"), "--pdeathsig", "KILL", "--", _found(tool.program, tool.package)]
    process = await asyncio.create_subprocess_exec(
        *words,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=keep_open,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", **dict(tool.environment)},
    )
    try:
        async with asyncio.timeout(tool.timeout_s):
            stderr = await _last_words(process)
            await process.wait()
    except TimeoutError:
        raise HostError(f"{tool.program} did not {task} within {tool.timeout_s:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise _failure(tool, task, process.returncode or 0, stderr.decode(errors="replace"))


async def _last_words(process: asyncio.subprocess.Process) -> bytes:
    """The end of what it says until it ends: an image may give it a word to say about each of a million files."""
    assert process.stderr is not None, "it is a pipe"
    said = bytearray()
    while piece := await process.stderr.read(_STDERR_LIMIT):
        said += piece
        del said[:-_STDERR_LIMIT]
    return bytes(said)


def _found(program: str, package: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise MissingPartError(f"{program}: no such program", hint=f"apt-get install {package}")
    return path


def _failure(tool: Tool, task: str, status: int, stderr: str) -> HostError | ResourceError:
    if any(words in stderr for words in _NO_ROOM):
        return ResourceError(f"no room to {task}", hint="free some of that file system")
    # It may name a file of an image, which is called as whoever made that has liked.
    lines = [untrusted.plain(line.strip()) for line in stderr.splitlines() if line.strip()]
    end = f"exit status {status}" if status >= 0 else f"killed by signal {-status}"
    return HostError(f"{tool.program} could not {task}: {lines[-1] if lines else 'no message'} ({end})")
