"""Tells containerd what happened to a task: in order, and across its restarts.

One queue, one connection, one event under way at a time, so the order in which events
are published is the order in which containerd sees them. While containerd is away the
queue waits and tries again; an event that cannot be delivered for EVENT_RETRY_S is
dropped and logged, because a shim must not keep what nobody will ever take.

Topics and messages: api/events.proto; the type URL of an event is its bare message name
(https://github.com/containerd/typeurl).
"""

import asyncio
import contextlib
import socket
import time
from typing import Final

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from api import events_pb2, events_service_pb2
from api.events_service_ttrpc import EventsStub
from shim import deadlines
from shim.log import Logger
from ttrpc import Client, StatusError

_RETRY_PAUSE_S: Final = 0.25

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


class Publisher:
    """The events of one shim. `address` is containerd's ttrpc socket, from TTRPC_ADDRESS."""

    def __init__(self, address: str, namespace: str, log: Logger) -> None:
        self._address = address.removeprefix("unix://")
        self._namespace = namespace
        self._log = log
        self._queue: asyncio.Queue[events_service_pb2.ForwardRequest] = asyncio.Queue()
        self._client: Client | None = None
        self._sender = asyncio.create_task(self._send_all(), name="events")

    def publish(self, event: Message) -> None:
        """Queue an event of api/events.proto; it carries the time of this call."""
        request = events_service_pb2.ForwardRequest()
        request.envelope.timestamp.FromNanoseconds(time.time_ns())
        request.envelope.namespace = self._namespace
        request.envelope.topic = _TOPICS[type(event)]
        # Any.Pack would put type.googleapis.com/ in front, which containerd's typeurl.Is does not match.
        request.envelope.event.CopyFrom(
            AnyMessage(type_url=event.DESCRIPTOR.full_name, value=event.SerializeToString())
        )
        self._queue.put_nowait(request)

    @property
    def waiting(self) -> int:
        """How many events are queued, and not under way yet."""
        return self._queue.qsize()

    async def close(self) -> None:
        """Deliver what is queued, for at most EVENT_FLUSH_S, then hang up."""
        try:
            async with asyncio.timeout(deadlines.EVENT_FLUSH_S):
                await self._queue.join()
        except TimeoutError:
            self._log.warning("events not delivered", count=self._queue.qsize() + 1)
        self._sender.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._sender
        await self._hang_up()

    async def _send_all(self) -> None:
        while True:
            request = await self._queue.get()
            try:
                async with asyncio.timeout(deadlines.EVENT_RETRY_S):
                    await self._send(request)
            except TimeoutError:
                self._log.error("event dropped: containerd does not take it", topic=request.envelope.topic)
            finally:
                self._queue.task_done()

    async def _send(self, request: events_service_pb2.ForwardRequest) -> None:
        while True:
            connection_is_new = self._client is None
            try:
                await self._forward(request)
                return
            except (OSError, StatusError) as error:
                self._log.debug("event not delivered yet", topic=request.envelope.topic, error=str(error))
                await self._hang_up()
            if connection_is_new:
                # containerd restarts, or refuses for a moment: there is no fd to wait on, so pause and try again.
                await asyncio.sleep(_RETRY_PAUSE_S)

    async def _forward(self, request: events_service_pb2.ForwardRequest) -> None:
        if self._client is None:
            self._client = Client(await _dial(self._address))
        await EventsStub(self._client).Forward(request, timeout_s=deadlines.EVENT_CALL_S)

    async def _hang_up(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()


async def _dial(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        async with asyncio.timeout(deadlines.DIAL_S):
            await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock
