"""A `crun create` that a template has begun: run, linked, and standing where it reads the configuration.

A clone's processor has translated nothing yet, so a program's first steps are what its start costs: running crun and
linking it are a fifth of a container's creation (docs/decisions/0013). So the template does that much beforehand: it
starts crun in a bundle whose config.json is a FIFO, and waits until crun has opened it. A clone's first container
writes its configuration into the FIFO, and crun goes on.

crun reads config.json twice (crun 1.21: container.c, libcrun_container_load_from_file and libcrun_copy_config_file),
by name each time. For the second time the FIFO has been replaced by a file.

What crun has done by then depends on nothing of the container but what stands on its command line and its three
standard streams: its name for the container, its bundle, and pipes or /dev/null or a console socket. So there is one
for each `Shape`. Whatever a container needs otherwise is made by a crun of its own.
"""

import asyncio
import enum
import fcntl
import os
from contextlib import suppress

from vminitd import deadlines
from vminitd.boot import RUN_DIR
from vminitd.crun import Creation, Crun
from vminitd.directory import write_private
from vminitd.errors import CrunError
from vminitd.stdio import Pipes, Wish, make_pipes

_MOST_BYTES = 256 << 10  # of a configuration: as much as is in the pipe at once


class Shape(enum.Enum):
    """Which standard streams a process has: names of pipes; the rest is /dev/null, or a terminal is all of it."""

    PIPES = ("stdin", "stdout", "stderr")
    OUTPUT = ("stdout", "stderr")
    TERMINAL = ()

    @classmethod
    def of(cls, wish: Wish) -> "Shape | None":
        """None where there is no such shape."""
        if wish.terminal:
            return cls.TERMINAL
        names = tuple(name for name in ("stdin", "stdout", "stderr") if getattr(wish, name))
        return next((shape for shape in (cls.PIPES, cls.OUTPUT) if shape.value == names), None)


class ParkedCreate:
    """One crun that waits. Let it `go`; `close` it in any case."""

    def __init__(self, crun: Crun, shape: Shape, directory: str) -> None:
        """Starts crun in `directory`, which is made, with the name of that for the container.

        Raises CrunError or OSError; then nothing is left.
        """
        self.shape = shape
        self.name = os.path.basename(directory)
        """What crun calls the container that it is going to make."""
        self.console = "" if shape is not Shape.TERMINAL else f"{directory}/tty"
        """Where it will look for the console socket; empty without a terminal."""
        self.pipes: Pipes | None = None
        """The process's streams. Whoever takes them sets this to None."""
        self._crun = crun
        self._directory = directory
        self._creation: Creation | None = None
        self._config = -1
        try:
            os.makedirs(directory, mode=0o700)
            os.mkfifo(f"{directory}/config.json", 0o600)
            if shape is not Shape.TERMINAL:
                self.pipes = make_pipes(shape.value)
            streams = self.pipes.child if self.pipes else None
            self._creation = crun.begin_create(self.name, directory, streams, self.console)
            self.ended = self._creation.call.ended
            """Its exit status; it exits by itself, once it has made the container."""
        except BaseException:
            self._clear()
            raise

    @property
    def waits(self) -> bool:
        """Whether it is there, and has not been used."""
        return self._config >= 0 and not self.ended.done()

    async def reach(self) -> None:
        """Returns when crun is where it waits. Raises CrunError."""
        fifo = f"{self._directory}/config.json"
        # Opening a FIFO for writing returns when it has been opened for reading: crun is there then.
        opening = asyncio.create_task(asyncio.to_thread(os.open, fifo, os.O_WRONLY | os.O_CLOEXEC))
        await asyncio.wait((opening, self.ended), timeout=deadlines.CRUN, return_when=asyncio.FIRST_COMPLETED)
        if not opening.done():
            # Lets go of the thread, whether it is in its call already or not yet.
            reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.close(await opening)
            finally:
                os.close(reading)
            await self._created(0)
            raise CrunError("crun create has not read its configuration")
        self._config = opening.result()
        fcntl.fcntl(self._config, fcntl.F_SETPIPE_SZ, _MOST_BYTES)

    async def go(self, config: bytes) -> int:
        """Makes the container; gives its pid. As `Crun.create`."""
        draft = f"{self._directory}/draft"
        write_private(draft, config)
        os.rename(draft, f"{self._directory}/config.json")
        try:
            with suppress(BrokenPipeError):  # it has ended, which is told below
                os.write(self._config, config)
        finally:
            self._close_config()
        return await self._created()

    async def close(self) -> None:
        """Removes what it has; a crun that still waits reads an empty configuration, and ends."""
        self._close_config()
        if self._creation is not None:
            with suppress(CrunError):
                await self._created()
        self._clear()

    async def _created(self, deadline_s: float | None = None) -> int:
        assert self._creation is not None
        creation, self._creation = self._creation, None
        return await self._crun.created(creation, deadline_s)

    def _close_config(self) -> None:
        if self._config >= 0:
            os.close(self._config)
            self._config = -1

    def _clear(self) -> None:
        if self.pipes is not None:
            self.pipes.close()
            self.pipes = None
        with suppress(FileNotFoundError):
            for name in os.listdir(self._directory):
                os.unlink(f"{self._directory}/{name}")
            os.rmdir(self._directory)


class Prepared:
    """What a template has made ready for the containers of its clones."""

    def __init__(self) -> None:
        self.parked: list[ParkedCreate] = []
        self.device_rules = False
        """Whether the cgroup `devices.SHARED` is there, with its program."""


def take(parked: list[ParkedCreate], wish: Wish, config: bytes) -> ParkedCreate | None:
    """Takes the one out of `parked` that can make such a container, if there is one."""
    shape = Shape.of(wish)
    for each in parked:
        if each.shape is shape and each.waits and len(config) <= _MOST_BYTES:
            parked.remove(each)
            return each
    return None


async def park(crun: Crun, shape: Shape, directory: str = f"{RUN_DIR}/parked") -> ParkedCreate:
    """Starts a crun below `directory` and waits until it waits. Raises CrunError or OSError; then nothing is left.

    Its name begins with a character that no container's does (`spec.safe_name`).
    """
    parked = ParkedCreate(crun, shape, f"{directory}/+{shape.name.lower()}")
    try:
        await parked.reach()
    except BaseException:
        await parked.close()
        raise
    return parked
