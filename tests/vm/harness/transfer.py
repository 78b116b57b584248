"""A client of containerd's transfer and streaming services, which asks as containerd's own does.

https://github.com/containerd/containerd, core/transfer/streaming/stream.go: who sends waits for a window, who
receives gives one.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from api import streaming_pb2, transfer_pb2
from api import transfer_types_pb2 as types
from api.streaming_ttrpc import StreamingStub
from api.transfer_ttrpc import TransferStub
from shim.typed import typed
from ttrpc import Client, Stream

TAR = "application/x-tar"
_WINDOW = 64 << 10
Channel = Stream[AnyMessage, AnyMessage]


@asynccontextmanager
async def opened(client: Client, name: str) -> AsyncIterator[Channel]:
    """A stream under an id, as the client opens it."""
    async with StreamingStub(client).Stream() as channel:
        await channel.send(typed(streaming_pb2.StreamInit(id=name)))
        answer = await channel.receive()
        assert answer is not None
        assert answer.type_url == "google.protobuf.Empty"
        yield channel


async def received(channel: Channel) -> bytes:
    """All data to the stream's end, with windows given as containerd gives them."""
    got, window = bytearray(), 0
    while True:
        if window < _WINDOW:
            await channel.send(typed(types.WindowUpdate(update=_WINDOW)))
            window += _WINDOW
        message = await channel.receive()
        if message is None:
            return bytes(got)
        assert message.type_url == "containerd.types.transfer.Data"
        data = types.Data.FromString(message.value).data
        window -= len(data)
        assert window >= 0
        got += data


async def sent(channel: Channel, data: bytes) -> None:
    """All of it, within the windows that are given, and the end."""
    window = 0
    while data:
        while not window:
            message = await channel.receive()
            assert message is not None
            window += types.WindowUpdate.FromString(message.value).update
        piece = data[: min(window, 32 << 10)]
        await channel.send(typed(types.Data(data=piece)))
        window -= len(piece)
        data = data[len(piece) :]
    await channel.close_send()


async def transfer(client: Client, source: Message, destination: Message) -> None:
    request = transfer_pb2.TransferRequest(source=typed(source), destination=typed(destination))
    async with asyncio.timeout(60):
        await TransferStub(client).Transfer(request)
