"""What the tests of servers serve, and how they ask for it."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from ttrpc import Client, Context, Method, Server, Service, StatusError
from ttrpc.service import Unary

Soon = Callable[[Awaitable[object]], Awaitable[object]]
MakeServer = Callable[[Mapping[str, Method]], Server]
Connect = Callable[[Server], Client]
Pair = Callable[[], tuple[socket.socket, socket.socket]]
Reports = list[tuple[str, BaseException]]


class Named(Service):
    """One unary method, "Say", of the service `name`."""

    def __init__(self, name: str, answer: str) -> None:
        self._name = name
        self._answer = answer

    def service_methods(self) -> Mapping[str, Method]:
        return {f"/{self._name}/Say": Unary(StringValue, self.say)}

    async def say(self, request: StringValue, _context: Context) -> StringValue:
        return StringValue(value=f"{self._answer} {request.value}")


class Gate:
    """A method that waits until it is let go."""

    def __init__(self) -> None:
        self.started = asyncio.Semaphore(0)
        self.open = asyncio.Event()
        self.cancelled = 0

    async def wait(self, request: StringValue, _context: Context) -> StringValue:
        self.started.release()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return request

    def methods(self) -> Mapping[str, Method]:
        return {"Say": Unary(StringValue, self.wait)}


def say(client: Client, text: str, service: str = "test.Service") -> "asyncio.Task[StringValue]":
    return asyncio.create_task(client.call(f"/{service}/Say", StringValue(value=text), StringValue))


async def status_of(call: Awaitable[object]) -> StatusError:
    with pytest.raises(StatusError) as caught:
        await call
    return caught.value


def listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener
