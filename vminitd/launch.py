"""Lets crun make a process with its streams, and takes over what it leaves behind: a child, perhaps a terminal."""

import asyncio
import itertools
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple

from vminitd import deadlines
from vminitd.boot import RUN_DIR
from vminitd.crun import ChildStreams, Crun
from vminitd.dial import Dial
from vminitd.parked import Prepared
from vminitd.reaper import Reaper
from vminitd.stdio import Stdio
from vminitd.terminal import console_socket
from vminitd.uevent import Uevents

_numbers = itertools.count(1)


class Machinery(NamedTuple):
    """What containers need of the machine.

    `directory` is where each has its own; `prepared` is a template's; `network` returns when the network is there.
    """

    uevents: Uevents
    reaper: Reaper
    crun: Crun
    dial: Dial
    prepared: Prepared
    network: Callable[[], Awaitable[None]]
    directory: str = f"{RUN_DIR}/containers"


class Started(NamedTuple):
    """A process that exists. `master` is the terminal's other end, or -1."""

    pid: int
    ended: asyncio.Future[int]
    master: int


Run = Callable[[ChildStreams | None, str], Awaitable[int]]
"""A call of crun with streams or the path of a console socket; gives the process's pid."""


async def launch(machinery: Machinery, stdio: Stdio, run: Run, console_path: str = "") -> Started:
    """Calls `run` with what `stdio` needs; a console socket is at `console_path`, if that is not empty.

    Raises CrunError; then there is no process, or it is killed.
    """
    with machinery.reaper.adopting():
        if not stdio.terminal:
            pid = await run(stdio.child, "")
            return Started(pid, machinery.reaper.expect(pid), -1)
        # unix(7) allows paths of 107 bytes, which a container's directory may exceed.
        with console_socket(console_path or f"{RUN_DIR}/tty.{next(_numbers)}") as console:
            receiving = asyncio.create_task(console.receive())
            try:
                pid = await run(None, console.path)
            except BaseException:
                receiving.cancel()
                await _discard(receiving)
                raise
            ended = machinery.reaper.expect(pid)
            try:
                master = await receiving
            except BaseException:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                raise
            return Started(pid, ended, master)


async def discard(started: Started) -> None:
    """Ends a process that nobody was told of, and closes its terminal."""
    with suppress(ProcessLookupError):
        os.kill(started.pid, signal.SIGKILL)
    if started.master >= 0:
        os.close(started.master)
    # An error of its own there would hide why it is ended; what is left of the container says it anyway.
    await asyncio.wait([started.ended], timeout=deadlines.KILLED)


async def _discard(receiving: asyncio.Task[int]) -> None:
    """Closes a terminal that came though it is not wanted any more."""
    await asyncio.wait([receiving])
    if not receiving.cancelled() and receiving.exception() is None:
        os.close(receiving.result())
