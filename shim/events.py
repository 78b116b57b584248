"""Tells containerd what happened to a task: in order, and across its restarts.

One queue, one connection, one event under way at a time, so the order in which events
are published is the order in which containerd sees them. While containerd is away the
queue waits, as long as it takes; it keeps the QUEUE_LIMIT newest, and of those that
must go the ends of processes go last. An event that containerd refuses for
EVENT_RETRY_S is dropped: the others wait behind it. The log says what was dropped.

Topics and messages: api/events.proto; the type URL of an event is its bare message name
(https://github.com/containerd/typeurl).
"""

import asyncio
import contextlib
import socket
import time
from collections import Counter
from typing import Final

from google.protobuf.message import Message

from api import events_pb2, events_service_pb2
from api.events_service_ttrpc import EventsStub
from shim import deadlines
from shim.log import Logger
from shim.typed import typed
from ttrpc import Client, Code, ConnectionClosed, StatusError

# An event has some 300 bytes. An exec makes three, so these are the events of five minutes with one each second.
QUEUE_LIMIT: Final = 1024

_RETRY_PAUSE_S: Final = 0.25
# What the pause grows to while containerd is away.
_LONGEST_PAUSE_S: Final = 2.0

_TOPICS: Final[dict[type[Message], str]] = {
    events_pb2.TaskCreate: "/tasks/create",
    events_pb2.TaskStart: "/tasks/start",
    events_pb2.TaskExit: "/tasks/exit",
    events_pb2.TaskDelete: "/tasks/delete",
    events_pb2.TaskOOM: "/tasks/oom",
    events_pb2.TaskExecAdded: "/tasks/exec-added",
    events_pb2.TaskExecStarted: "/tasks/exec-started",
    events_pb2.TaskPaused: "/tasks/paused",
    events_pb2.TaskResumed: "/tasks/resumed",
}
_EXIT: Final = _TOPICS[events_pb2.TaskExit]

_Event = events_service_pb2.ForwardRequest


class Publisher:
    """The events of one shim. `address` is containerd's ttrpc socket, from TTRPC_ADDRESS."""

    def __init__(self, address: str, namespace: str, log: Logger) -> None:
        self._address = address.removeprefix("unix://")
        self._namespace = namespace
        self._log = log
        # In order; the first is the one under way.
        self._queue: list[_Event] = []
        self._came = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        # By topic, what had to go since containerd was last there.
        self._dropped: Counter[str] = Counter()
        self._client: Client | None = None
        self._sender = asyncio.create_task(self._send_all(), name="events")

    def publish(self, event: Message) -> None:
        """Queue an event of api/events.proto; it carries the time of this call."""
        request = events_service_pb2.ForwardRequest()
        request.envelope.timestamp.FromNanoseconds(time.time_ns())
        request.envelope.namespace = self._namespace
        request.envelope.topic = _TOPICS[type(event)]
        request.envelope.event.CopyFrom(typed(event))
        self._queue.append(request)
        self._make_room()
        self._empty.clear()
        self._came.set()

    @property
    def waiting(self) -> int:
        """How many events have not been delivered yet."""
        return len(self._queue)

    async def close(self) -> None:
        """Deliver what is queued, for at most EVENT_FLUSH_S, then hang up."""
        try:
            async with asyncio.timeout(deadlines.EVENT_FLUSH_S):
                await self._empty.wait()
        except TimeoutError:
            self._log.warning("events not delivered", count=len(self._queue))
        self._sender.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._sender
        self._tell_dropped()
        await self._hang_up()

    def _make_room(self) -> None:
        """Drop the oldest that is no exit, or else the oldest: not the first, which may be under way."""
        if len(self._queue) <= QUEUE_LIMIT:
            return
        victim = next((i for i, event in enumerate(self._queue) if i and event.envelope.topic != _EXIT), 1)
        if not self._dropped:
            self._log.error("events are dropped: containerd is away, and too many wait", limit=QUEUE_LIMIT)
        self._dropped[self._queue.pop(victim).envelope.topic] += 1

    def _tell_dropped(self) -> None:
        if self._dropped:
            counts = ", ".join(f"{count} {topic}" for topic, count in sorted(self._dropped.items()))
            self._log.error("events were dropped while containerd was away", dropped=counts)
            self._dropped.clear()

    async def _send_all(self) -> None:
        while True:
            await self._came.wait()
            while self._queue:
                await self._send(self._queue[0])
                self._tell_dropped()
                del self._queue[0]
            self._came.clear()
            self._empty.set()

    async def _send(self, request: _Event) -> None:
        """Deliver one event, or give up after containerd has refused it for too long."""
        pause_s = _RETRY_PAUSE_S
        refused_at: float | None = None
        while True:
            connection_is_new = self._client is None
            try:
                await self._forward(request)
                return
            except (OSError, StatusError) as error:
                self._log.debug("event not delivered yet", topic=request.envelope.topic, error=str(error))
                await self._hang_up()
                if _is_away(error):
                    refused_at = None
                else:
                    refused_at = refused_at or time.monotonic()
                    pause_s = _RETRY_PAUSE_S
            if refused_at is not None and time.monotonic() - refused_at >= deadlines.EVENT_RETRY_S:
                self._log.error("event dropped: containerd does not take it", topic=request.envelope.topic)
                return
            if connection_is_new:
                # containerd restarts, or refuses for a moment: there is no fd to wait on, so pause and try again.
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _forward(self, request: _Event) -> None:
        if self._client is None:
            self._client = Client(await _dial(self._address))
        await EventsStub(self._client).Forward(request, timeout_s=deadlines.EVENT_CALL_S)

    async def _hang_up(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()


def _is_away(error: OSError | StatusError) -> bool:
    """Whether containerd was not there, or did not answer, and has not refused the event."""
    if isinstance(error, StatusError):
        return isinstance(error, ConnectionClosed) or error.code is Code.DEADLINE_EXCEEDED
    return True


async def _dial(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        async with asyncio.timeout(deadlines.DIAL_S):
            await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock
