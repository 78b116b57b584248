"""What tests of the client have of a server that speaks frames by hand."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import StringValue

from ttrpc import Client, StatusError, Stream
from ttrpc.frame import NO_DATA, REMOTE_CLOSED, Frame, FrameType

END = REMOTE_CLOSED | NO_DATA


class Peer(Protocol):
    """What the fixture's raw server can do."""

    sock: socket.socket

    async def write(self, data: bytes) -> None: ...
    async def send(self, stream_id: int, frame_type: FrameType, flags: int, data: bytes) -> None: ...
    async def receive(self) -> Frame | None: ...
    async def next_id(self) -> int: ...
    async def works(self, client: Client) -> None: ...


RawServer = Callable[[], tuple[Client, Peer]]
Soon = Callable[[Awaitable[object]], Awaitable[object]]


def text(value: str) -> bytes:
    return StringValue(value=value).SerializeToString()


def call(client: Client, timeout_s: float | None = None) -> "asyncio.Task[StringValue]":
    return asyncio.create_task(client.call("/a.B/C", Empty(), StringValue, timeout_s=timeout_s))


def streaming(client: Client) -> Stream[Empty, StringValue]:
    return client.stream("/a.B/S", StringValue, request=Empty(), streams_out=True)


async def status_of(what: Awaitable[object]) -> StatusError:
    with pytest.raises(StatusError) as caught:
        await what
    return caught.value
