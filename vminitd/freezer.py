"""Stops one container and lets it go on: first its processes stand still, then its file systems.

In this order nobody stands still in the middle of a write, which would never end; and what the processes have written
by then is all on the disk. It goes on in the reverse order, so that nobody who runs meets a frozen file system.
"""

import asyncio
from typing import NamedTuple

from vminitd import log
from vminitd.cgroup import Cgroup
from vminitd.errors import KernelError, StateError
from vminitd.freeze import Freezes


class _Held(NamedTuple):
    """What is frozen, or about to be. Where nothing can be written to, that is no file system."""

    cgroup: Cgroup
    filesystems: Freezes


class Freezer:
    """`name` is for messages."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._held: _Held | None = None
        self._freezing: asyncio.Task[None] | None = None
        # A call that froze the file system, or will; it cannot be stopped when nobody waits for it any more.
        self._call: asyncio.Future[None] | None = None

    async def freeze(self, cgroup: Cgroup, filesystems: tuple[str, ...], deadline_s: float) -> None:
        """Stops the processes of `cgroup`, then the file systems that are mounted at `filesystems`.

        Raises KernelError where they do not stop, StateError if it was frozen already or `thaw` came in between. Then
        nothing is frozen.
        """
        if self._held is not None:
            raise StateError(f"{self._name} is frozen already, or about to be")
        if self._call is not None and not self._call.done():
            raise KernelError(f"the file system of {self._name} is still being written back for an earlier pause")
        held = self._held = _Held(cgroup, Freezes(filesystems))
        self._freezing = asyncio.create_task(self._freeze(held, deadline_s), name=f"freeze {self._name}")
        try:
            await self._freezing
        except asyncio.CancelledError:
            if self._held is held:  # it was done at that very moment
                await asyncio.shield(asyncio.ensure_future(self._give_up(held)))
            caller = asyncio.current_task()
            if caller is None or caller.cancelling():
                raise
            raise self._called_off() from None
        finally:
            self._freezing = None
        if self._held is not held:
            raise self._called_off()

    def _called_off(self) -> StateError:
        return StateError(f"{self._name} was not paused: it was resumed or killed meanwhile")

    async def _freeze(self, held: _Held, deadline_s: float) -> None:
        what = "the processes"
        try:
            async with asyncio.timeout(deadline_s):
                await held.cgroup.freeze()
                what = "the file system"
                self._call = asyncio.ensure_future(asyncio.to_thread(held.filesystems.freeze))
                self._call.add_done_callback(_heard)
                await asyncio.shield(self._call)
        except BaseException as error:
            # To its end, also if this is cancelled once more.
            await asyncio.shield(asyncio.ensure_future(self._give_up(held)))
            if isinstance(error, TimeoutError):
                raise KernelError(f"{what} of {self._name} did not stand still within {deadline_s:g} s") from error
            if isinstance(error, OSError):
                raise KernelError(f"cannot freeze {what} of {self._name}: {error.strerror}") from error
            raise

    async def _give_up(self, held: _Held) -> None:
        try:
            await asyncio.to_thread(held.filesystems.thaw)
        except OSError as error:
            log.error("could not thaw after a freeze that failed", container=self._name, error=str(error))
        finally:
            held.cgroup.thaw()
            self._held = None

    async def thaw(self) -> None:
        """Lets all go on, and calls off a freeze that is under way; nothing if none is.

        Raises KernelError where the file system cannot be thawed. Then the processes stand still, too.
        """
        if self._freezing is not None:
            self._freezing.cancel()
            await asyncio.wait([self._freezing])
        # Also where that was too late, because it was done.
        if (held := self._held) is None:
            return
        try:
            await asyncio.to_thread(held.filesystems.thaw)
            held.cgroup.thaw()
        except OSError as error:
            raise KernelError(f"cannot thaw {self._name}: {error.strerror}") from error
        self._held = None


def _heard(call: asyncio.Future[None]) -> None:
    """What becomes of it is no news where nobody waits for it any more."""
    if not call.cancelled():
        call.exception()
