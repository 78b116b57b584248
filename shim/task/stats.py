"""Stats: what a container uses, asked of its guest no more often than need be.

Whoever asks while an answer is under way, or has just come, gets that one: the clients of one containerd may be many
(a kubelet, a monitor, people), and each question costs the guest's processor its time.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from google.protobuf.any_pb2 import Any as AnyMessage

from api import guest_pb2
from shim import deadlines
from shim.guest import Guest
from shim.metrics import metrics
from shim.typed import typed

if TYPE_CHECKING:
    from shim.network.counters import Counters

FRESH_S: Final = 0.25
"""For how long an answer is given again. Clients that make rates of two answers are at least twice that apart."""


class Statistics:
    """The figures of one container. `clock` counts seconds.

    `network` reads what was counted on its interfaces (shim/network/counters.py); it may block, and raise HostError.
    """

    def __init__(
        self,
        container_id: str,
        guest: Guest,
        clock: Callable[[], float] = time.monotonic,
        network: "Callable[[], Sequence[Counters]] | None" = None,
    ) -> None:
        self._network = network
        self._request = guest_pb2.ContainerRequest(container_id=container_id)
        self._guest = guest
        self._clock = clock
        self._last = AnyMessage()
        self._asked_at = float("-inf")
        self._asking: asyncio.Task[AnyMessage] | None = None

    async def read(self) -> AnyMessage:
        """The figures, at most FRESH_S old. Raises GuestError, MachineError or HostError."""
        if self._clock() - self._asked_at < FRESH_S:
            return self._last
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(), name="stats")
            self._asking.add_done_callback(self._asked)
        # Whoever goes away leaves the answer to the others; it has a deadline of its own.
        return await asyncio.shield(self._asking)

    async def _ask(self) -> AnyMessage:
        asked_at = self._clock()
        reply = await self._guest.call(self._guest.containers.Stats(self._request), deadline_s=deadlines.GUEST_STATS_S)
        network = await asyncio.to_thread(self._network) if self._network is not None else ()
        self._last = typed(metrics(reply.files, network))
        self._asked_at = asked_at
        return self._last

    def _asked(self, task: asyncio.Task[AnyMessage]) -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()  # it was told to whoever still waited
