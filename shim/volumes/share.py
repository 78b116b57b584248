"""The volumes of one container: their sources opened once, and a daemon to serve them for each machine that is tried.

A source that is a symbolic link was followed when the specification was read (shim/mounts/sources.py); its path has
none any more. From its opening here on there is the open file and no path.
"""

import asyncio
import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from shim import deadlines
from shim.anchor_process import Source
from shim.errors import HostError, ResourceError, SpecError
from shim.journal import Journal
from shim.log import Logger
from shim.mounts import Volume
from shim.reclaim import mounts_below
from shim.volumes import program
from shim.volumes.daemon import Daemon, start
from shim.volumes.launcher import MOST_VOLUMES


class Share:
    """Those of one container, of which it may have none. `begin`, `serve` for each machine, `close` when it is gone.

    `configured` is the configuration's volumes.daemon; `directory` is the shim's own.
    """

    def __init__(
        self,
        volumes: Sequence[Volume],
        *,
        configured: str,
        directory: Path,
        source: Source,
        journal: Journal,
        log: Logger,
    ) -> None:
        self._volumes = volumes
        self._configured = configured
        self._directory = directory
        self._source = source
        self._journal = journal
        self._log = log
        self._command: list[str] = []
        self._opened: list[tuple[Volume, int]] = []
        self._starting: asyncio.Task[Daemon] | None = None
        self._daemons: list[Daemon] = []

    @property
    def wanted(self) -> bool:
        """Whether there are any: only then a machine is asked for shared memory, and given the device."""
        return bool(self._volumes)

    def begin(self) -> None:
        """Have a daemon get ready while other things do."""
        if self.wanted:
            self._starting = asyncio.create_task(self._start(), name="virtiofsd")

    async def serve(self) -> Daemon:
        """A daemon that nobody is connected to yet. Belongs to this object.

        Raises MissingPartError without the program, SpecError for a source that is gone, ResourceError for too many,
        HostError.
        """
        starting, self._starting = self._starting, None
        try:
            return await (starting or self._start())
        except asyncio.CancelledError:
            self._starting = starting  # for `close`
            raise

    async def close(self) -> None:
        """End what still runs, and let go of the sources. Nothing of it is on the host afterwards."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        for _, fd in self._opened:
            os.close(fd)
        self._opened.clear()
        for daemon in self._daemons:
            try:
                await daemon.stop()
            except HostError as error:  # the journal knows it
                self._log.error("virtiofsd is left", error=str(error))

    async def _start(self) -> Daemon:
        if len(self._volumes) > MOST_VOLUMES:
            raise ResourceError(
                f"the container has {len(self._volumes)} volumes, and {MOST_VOLUMES} at most can be had"
            )
        try:
            async with asyncio.timeout(deadlines.VOLUMES_READY_S):
                if not self._command:
                    found = program.find(self._configured)
                    if not self._opened:
                        self._opened = await asyncio.to_thread(_open_all, self._volumes)
                    submounts = await asyncio.to_thread(_several_file_systems, self._opened)
                    self._command = await program.command(found, submounts=submounts)
                daemon = await start(
                    self._command, self._opened, directory=self._directory, source=self._source, journal=self._journal
                )
        except TimeoutError:
            raise HostError(f"virtiofsd does not run after {deadlines.VOLUMES_READY_S:g} s") from None
        self._daemons.append(daemon)
        self._log.debug("virtiofsd started", pid=daemon.pid, volumes=len(self._volumes))
        return daemon


def _several_file_systems(opened: Sequence[tuple[Volume, int]]) -> bool:
    """Whether files of the volumes may have the same inode number, and not be the same file."""
    if len({os.fstat(fd).st_dev for _, fd in opened}) > 1 or any(volume.follows for volume, _ in opened):
        return True
    places = [os.readlink(f"/proc/self/fd/{fd}") for volume, fd in opened if volume.recursive]
    return any(point != place for place in places for point in mounts_below(place))


def _open_all(volumes: Sequence[Volume]) -> list[tuple[Volume, int]]:
    """Each volume with an open file of its source that is good for nothing else (open(2), O_PATH). Raises SpecError."""
    with contextlib.ExitStack() as undo:
        opened = []
        for volume in volumes:
            try:
                # O_DIRECTORY has what is mounted when somebody looks (autofs) mounted.
                fd = os.open(volume.source, os.O_PATH | os.O_CLOEXEC | (0 if volume.is_file else os.O_DIRECTORY))
            except OSError as error:
                raise SpecError(f"cannot mount {volume.source}: {error.strerror}") from error
            undo.callback(os.close, fd)
            if os.readlink(f"/proc/self/fd/{fd}") != os.fspath(volume.source):
                # Somebody has put a symbolic link on the way since it was looked at; the answer was for another source.
                raise SpecError(f"cannot mount {volume.source}: something else has been put in its place meanwhile")
            if volume.is_file and not stat.S_ISREG(os.fstat(fd).st_mode):
                raise SpecError(f"cannot mount {volume.source}: it is no regular file any more")
            opened.append((volume, fd))
        undo.pop_all()
    return opened
