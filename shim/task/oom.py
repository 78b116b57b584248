"""Processes that the guest's kernel kills for want of memory: containerd is told of them, once each time.

As runc's shim does with cgroup v2, one event stands for all that were killed since the last one. The guest says how
many there have been by then, in two ways: whenever it is asked to wait for more, and with the end of each process, so
that the event comes before the exit of the process that it is about. It is believed, but not as often as it likes.
"""

import asyncio
from typing import Final

from api import events_pb2, guest_pb2
from shim.errors import GuestError, MachineError
from shim.events import Publisher
from shim.guest import Guest
from shim.log import Logger

# The question is a few milliseconds of the guest's processor at a time when the first process has its start to do. Who
# is killed before it is asked is told of all the same: by its own end, or then.
_BEGIN_S: Final = 1.0
# From one event to the next: the first few may come quickly.
_PAUSE_S: Final = 0.1
_LONG_PAUSE_S: Final = 1.0
_QUICK_EVENTS: Final = 20
# Events that containerd has not taken yet, of whatever kind: no further one of this kind is added to so many.
_BACKLOG: Final = 100


class OomWatch:
    """Of one container."""

    def __init__(self, container_id: str, guest: Guest, events: Publisher, log: Logger) -> None:
        self._container_id = container_id
        self._guest = guest
        self._events = events
        self._log = log
        self._known = 0
        self._told = 0
        self._watching: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Let the guest tell of those that are killed from now on, and of those before."""
        self._watching = asyncio.create_task(self._watch(), name=f"oom {self._container_id}")

    def hear(self, kills: int) -> None:
        """The guest says that there have been so many. Tells containerd if those are more than it has been told of."""
        if kills <= self._known:
            return
        self._known = kills
        if self._events.waiting >= _BACKLOG:
            return
        self._told += 1
        self._events.publish(events_pb2.TaskOOM(container_id=self._container_id))

    def end(self) -> None:
        """Ask no more."""
        if self._watching is not None:
            self._watching.cancel()

    async def _watch(self) -> None:
        await asyncio.sleep(_BEGIN_S)
        try:
            while True:
                request = guest_pb2.OomKillsRequest(container_id=self._container_id, known=self._known)
                reply = await self._guest.call(self._guest.containers.OomKills(request), deadline_s=None)
                self.hear(reply.kills)
                await asyncio.sleep(_PAUSE_S if self._told < _QUICK_EVENTS else _LONG_PAUSE_S)
        except (GuestError, MachineError) as error:
            self._log.debug("the guest tells of no more kills", container=self._container_id, error=str(error))
