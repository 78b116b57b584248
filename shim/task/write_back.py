"""When what a container has written comes back to the host.

Twice: in Pause, once all stands still and before the answer, so that a commit sees it; and at the end of the first
process, before that is told, so that whoever hears of it finds all there. A Pause fails where that fails; an end does
not, and the image is kept for the next start (shim/rootfs/place.py). The end wins over a Pause under way.
"""

import asyncio
import contextlib
from typing import Final, Literal

from shim import deadlines
from shim.changes import pending
from shim.changes.write_back import WriteBack
from shim.errors import QemuboxError, StateError
from shim.guest import Guest
from shim.log import Logger
from shim.rootfs.prepare import PreparedRootfs
from shim.spec import Json, section

# What the CRI says of each container that it makes (containerd, internal/cri/annotations).
_CRI_CONTAINER_TYPE: Final = "io.kubernetes.cri.container-type"


def is_wanted(mode: Literal["auto", "always", "never"], document: Json) -> bool:
    """Whether the configuration wants it for a container of this specification."""
    if mode == "auto":
        return _CRI_CONTAINER_TYPE not in section(document, "annotations")
    return mode == "always"


class Changes:
    """Those of one container. `rootfs` says where they go; None, or not `enabled`: nowhere."""

    def __init__(
        self, container_id: str, guest: Guest, rootfs: PreparedRootfs | None, *, enabled: bool, log: Logger
    ) -> None:
        self._rootfs = rootfs if enabled else None
        self._image = rootfs.target.image if rootfs is not None and rootfs.target is not None else None
        self._log = log
        self._ended = False
        self._begun = False
        self._changed = False
        self._write_back: WriteBack | None = None
        self._running: asyncio.Task[None] | None = None
        # Held from a run after the end to the word that all has come back: of two of them the later one has it.
        self._at_end = asyncio.Lock()
        if self._rootfs is not None and self._rootfs.target is not None:
            self._write_back = WriteBack(container_id, guest, self._rootfs.target, log)
        if rootfs is not None and rootfs.place is not None and rootfs.place.taken_up:
            log.info("the writable image of an earlier start is taken up", image=str(rootfs.place.image))
            if rootfs.place.changed_behind:
                log.warning(
                    "the snapshot was changed behind its writable image, which wins",
                    snapshot=str(rootfs.place.snapshot.directory),
                    image=str(rootfs.place.image),
                )

    def begin(self) -> None:
        """The container is about to run, and to write, if it has not before. Raises HostError or ResourceError."""
        if self._begun:
            return
        if self._image is not None:
            pending.mark(self._image)
        if self._rootfs is not None and self._rootfs.place is not None:
            self._rootfs.place.begin()
        self._begun = True

    async def paused(self) -> None:
        """All stands still: bring its changes back. Raises as WriteBack.run, or StateError where it ends meanwhile."""
        if self._write_back is None:
            return
        if not self._ended:
            try:
                await self._run(self._write_back)
            except asyncio.CancelledError:
                caller = asyncio.current_task()
                if caller is None or caller.cancelling():
                    raise
        if self._ended:
            raise StateError("it has ended while it was being paused")

    async def ended(self) -> None:
        """Nothing runs any more: bring its changes back, and have the image removed with the container.

        Where that fails the image is kept, and the log says so. Waits for a Pause under way, which is called off.
        """
        self._ended = True
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        if self._write_back is None or self._rootfs is None or not (self._begun or self._rootfs.persistent):
            return
        async with self._at_end:
            failure = await self._run_at_end(self._write_back)
            if failure is None:
                self._returned()
                return
        place = self._rootfs.place
        # The end is told all the same, whatever it is: nobody could ever delete the container else.
        self._log.error(
            "what the container has written did not come back",
            error=str(failure) or repr(failure),
            kept=str(place.image) if place else "",
            exc_info=None if isinstance(failure, QemuboxError) else failure,
        )

    async def _run_at_end(self, write_back: WriteBack) -> BaseException | None:
        """One run, which is over with this in any case: whoever called it off closes the image next."""
        run = asyncio.create_task(self._noted(write_back), name="write back at the end")
        try:
            await asyncio.wait([run])
        finally:
            run.cancel()
            while not run.done():
                with contextlib.suppress(asyncio.CancelledError):  # one is enough
                    await asyncio.wait([run])
        return run.exception()

    async def copied_into(self) -> None:
        """Files were put into it (shim/copy): before its start they count as written, after its end they come back now.

        Raises as `begin`, and as WriteBack.run; then the image is kept.
        """
        self.begin()
        if self._write_back is None or self._rootfs is None or not self._ended:
            return
        async with self._at_end:
            if self._image is not None:
                pending.mark(self._image)
            if self._rootfs.place is not None:
                self._rootfs.place.written()
            await self._noted(self._write_back)
            self._returned()

    def _returned(self) -> None:
        """All has come back: the image goes with the container."""
        if self._image is not None:
            pending.clear(self._image)
        if self._rootfs is not None and self._rootfs.place is not None:
            self._rootfs.place.returned(changed=self._changed)

    async def _run(self, write_back: WriteBack) -> None:
        self._running = asyncio.create_task(self._noted(write_back), name="write back")
        try:
            await self._running
        finally:
            self._running = None

    async def _noted(self, write_back: WriteBack) -> None:
        """One run. Who looks at the snapshot's times later must not take us for somebody else."""
        place = self._rootfs.place if self._rootfs else None
        if place is not None:
            await asyncio.to_thread(place.note, None)
        changed = True  # in part, if it fails
        try:
            applied = await write_back.run(deadlines.WRITE_BACK_S)
            changed = bool(applied.applied or applied.removed)
        finally:
            self._changed |= changed
            if place is not None:
                place.note_now()
