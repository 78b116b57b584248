"""What a server can be asked: services, and their methods in the four kinds.

A generated `XxxBase` derives from `Service` and pairs each method's path with one of the four `Method` kinds;
people derive from `XxxBase` and write plain coroutines and async generators.

The kinds hide the message types from the server: to it a method is bytes in, bytes out.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Generic, Protocol, TypeVar

from google.protobuf.message import Message

from ttrpc.context import Context
from ttrpc.messages import decode_payload
from ttrpc.status import Code, StatusError

Req = TypeVar("Req", bound=Message)
Resp = TypeVar("Resp", bound=Message)


class Exchange(Protocol):
    """One call as a method needs it."""

    @property
    def payload(self) -> bytes:
        """What came with the request."""

    @property
    def context(self) -> Context: ...

    async def receive(self) -> bytes | None:
        """The client's next message; None when it sends no more."""

    async def send(self, data: bytes) -> None:
        """Sends one message of a stream; waits while the client does not read."""


class Method:
    """A method of any kind.

    `streams_in`: the client sends any number of messages. `streams_out`: the server answers with any number.
    """

    streams_in = False
    streams_out = False

    async def run(self, exchange: Exchange) -> bytes:
        """Handles one call. The result is the reply's bytes; it counts for nothing if `streams_out`."""
        raise NotImplementedError


class Service:
    """Base of the generated bases."""

    def service_methods(self) -> Mapping[str, Method]:
        """Methods by path, "/package.Service/Method"."""
        raise NotImplementedError


class Unary(Method, Generic[Req, Resp]):
    """One request, one reply."""

    def __init__(self, request_type: type[Req], handler: Callable[[Req, Context], Awaitable[Resp]]) -> None:
        self._request_type = request_type
        self._handler = handler

    async def run(self, exchange: Exchange) -> bytes:
        request = decode_payload(self._request_type, exchange.payload)
        reply = await self._handler(request, exchange.context)
        return reply.SerializeToString()


class ServerStreaming(Method, Generic[Req, Resp]):
    """One request, any number of replies."""

    streams_out = True

    def __init__(self, request_type: type[Req], handler: Callable[[Req, Context], AsyncIterator[Resp]]) -> None:
        self._request_type = request_type
        self._handler = handler

    async def run(self, exchange: Exchange) -> bytes:
        request = decode_payload(self._request_type, exchange.payload)
        return await _send_all(self._handler(request, exchange.context), exchange)


class ClientStreaming(Method, Generic[Req, Resp]):
    """Any number of requests, one reply."""

    streams_in = True

    def __init__(
        self, request_type: type[Req], handler: Callable[[AsyncIterator[Req], Context], Awaitable[Resp]]
    ) -> None:
        self._request_type = request_type
        self._handler = handler

    async def run(self, exchange: Exchange) -> bytes:
        reply = await self._handler(_requests(self._request_type, exchange), exchange.context)
        return reply.SerializeToString()


class Bidirectional(Method, Generic[Req, Resp]):
    """Any number of requests, any number of replies, in whatever order."""

    streams_in = True
    streams_out = True

    def __init__(
        self, request_type: type[Req], handler: Callable[[AsyncIterator[Req], Context], AsyncIterator[Resp]]
    ) -> None:
        self._request_type = request_type
        self._handler = handler

    async def run(self, exchange: Exchange) -> bytes:
        requests = _requests(self._request_type, exchange)
        return await _send_all(self._handler(requests, exchange.context), exchange)


async def _requests(request_type: type[Req], exchange: Exchange) -> AsyncIterator[Req]:
    while (data := await exchange.receive()) is not None:
        yield decode_payload(request_type, data)


async def _send_all(replies: AsyncIterator[Resp], exchange: Exchange) -> bytes:
    try:
        async for reply in replies:
            await exchange.send(reply.SerializeToString())
    finally:
        # A generator that is not at its end would run its `finally` only when collected.
        if isinstance(replies, AsyncGenerator):
            await replies.aclose()
    return b""


def unimplemented(path: str) -> StatusError:
    """What a base's method raises until it is overridden."""
    return StatusError(Code.UNIMPLEMENTED, f"{path} is not implemented")
