"""What a container has written goes into its snapshot's directory: the one entry for the rest of the shim."""

import asyncio
import contextlib
import errno
import functools
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from api import changes_pb2
from shim.changes.apply import Applying, NotTold
from shim.changes.listing import Listing, shown
from shim.changes.target import Target
from shim.errors import GuestError, HostError, ResourceError
from shim.guest import Guest
from shim.log import Logger
from ttrpc import Code

# Longer before a listing than what is changed in the second before it, which is applied again.
_MARGIN_NS: Final = 2_000_000_000
_NO_ROOM: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


@dataclass(frozen=True, slots=True)
class Applied:
    """What one run did."""

    # Listed by the guest, the root directory included.
    entries: int = 0
    # Made or changed on the host. The root directory, of which only the time is another, does not count.
    applied: int = 0
    # Names that are gone from the host.
    removed: int = 0
    # Data copied out of the image.
    data_bytes: int = 0


class WriteBack:
    """The changes of one container. `run` may be called any number of times; each waits for the one before it."""

    def __init__(self, container_id: str, guest: Guest, target: Target, log: Logger) -> None:
        self._container_id = container_id
        self._guest = guest
        self._target = target
        self._log = log
        self._lock = asyncio.Lock()
        # What was changed before this, by the guest's clock, was applied, and is as it was unless its facts differ.
        self._known_ns = 0
        # Of an image that is taken up all is applied once more.
        self._trusted = not target.taken_up

    async def run(self, deadline_s: float) -> Applied:
        """Bring the target up to what the guest's upper directory holds now.

        Whatever writes there must stand still, or have ended. Raises GuestError (vminitd's own error, a listing that
        cannot be, the deadline), MachineError, ResourceError (the host's disk is full) or HostError. After an error
        the directory may hold a part of the changes, in whole files; the next run, in this shim or another, does the
        rest.
        """
        try:
            async with asyncio.timeout(deadline_s), self._lock:
                try:
                    done = await self._run()
                except NotTold:  # its clock was set back, or the record is gone
                    self._known_ns = 0
                    done = await self._run()
        except NotTold:
            raise GuestError(
                Code.DATA_LOSS, f"the guest does not tell all of the changes of {self._container_id}"
            ) from None
        except TimeoutError:
            raise GuestError(
                Code.DEADLINE_EXCEEDED,
                f"the changes of {self._container_id} were not in {self._target.directory} within {deadline_s:g} s",
            ) from None
        except OSError as error:
            raise self._failure(error) from error
        self._log.debug(
            "changes written back",
            container=self._container_id,
            entries=done.entries,
            applied=done.applied,
            removed=done.removed,
            data_bytes=done.data_bytes,
        )
        return done

    async def _run(self) -> Applied:
        listing = Listing(os.fstat(self._target.image).st_size)
        page = await self._page(0)
        items = listing.page(page)
        stop = threading.Event()
        applying = Applying(self._target, stop, trusted=self._trusted)
        number = 0
        try:
            await _in_thread(applying.begin, stop)
            while not page.last:
                number += 1
                page = await self._while_coming(number, functools.partial(applying.page, items), stop)
                items = listing.page(page)
            await _in_thread(functools.partial(applying.end, items), stop)
        finally:
            applying.close()
        self._trusted = True
        self._known_ns = max(0, listing.began_ns - _MARGIN_NS)
        return Applied(listing.entries, applying.applied, applying.removed, applying.data_bytes)

    async def _page(self, number: int) -> changes_pb2.ListResponse:
        """The deadline is that of the whole run: the guest has all that was written to bring to its disk first."""
        request = changes_pb2.ListRequest(
            container_id=self._container_id,
            page=number,
            upon_earlier=self._target.has_earlier,
            known_ns=self._known_ns,
        )
        return await self._guest.call(self._guest.changes.List(request), deadline_s=None)

    async def _while_coming(
        self, number: int, work: Callable[[], None], stop: threading.Event
    ) -> changes_pb2.ListResponse:
        """The guest lists the next page while the last one is applied."""
        coming = asyncio.create_task(self._page(number), name=f"page {number} of {self._container_id}'s changes")
        try:
            await _in_thread(work, stop)
            return await coming
        finally:
            coming.cancel()
            await asyncio.wait((coming,))
            if not coming.cancelled():
                coming.exception()

    def _failure(self, error: OSError) -> HostError | ResourceError:
        where = os.fsencode(error.filename) if isinstance(error.filename, str | bytes) else b""
        what = f"changes of {self._container_id} in {self._target.directory}, at {shown((where,))}: {error.strerror}"
        if error.errno in _NO_ROOM:
            return ResourceError(what, hint="free some of that file system; the rest is done by the next run")
        return HostError(what)


async def _in_thread(work: Callable[[], None], stop: threading.Event) -> None:
    """Do `work` in a thread. When nobody waits for it any more, it is stopped, and over before this is."""
    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(working)
    except asyncio.CancelledError:
        stop.set()
        while not working.done():
            with contextlib.suppress(asyncio.CancelledError):  # one is enough
                await asyncio.wait((working,))
        if not working.cancelled():
            working.exception()
        raise
