"""The connection to containerd's socket: every call has a deadline, and every failure is one clear sentence."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, TypeVar

from google.protobuf.message import Message
from grpclib.client import Channel, Stream, UnaryUnaryMethod
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from shim.deadlines import CONTAINERD_CALL_S
from shim.errors import (
    AlreadyExistsError,
    HostError,
    MissingPartError,
    NotFoundError,
    QemuboxError,
    ResourceError,
    StateError,
    UnsupportedError,
)

Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)

# What containerd says with each status (errdefs, pkg/errgrpc); others are its failure.
_ERRORS: Final[Mapping[Status, type[QemuboxError]]] = {
    Status.NOT_FOUND: NotFoundError,
    Status.ALREADY_EXISTS: AlreadyExistsError,
    Status.FAILED_PRECONDITION: StateError,
    Status.UNIMPLEMENTED: UnsupportedError,
    Status.RESOURCE_EXHAUSTED: ResourceError,
}
# containerd's metadata of every call (pkg/namespaces/grpc.go, leases/grpc.go).
_NAMESPACE: Final = "containerd-namespace"
_LEASE: Final = "containerd-lease"


class Connection:
    """Calls to the containerd that listens at `address`, all in `namespace`.

    An asynchronous context manager.
    """

    def __init__(self, address: Path, namespace: str) -> None:
        self._address = address
        self._metadata = {_NAMESPACE: namespace}
        self._channel = Channel(path=str(address))

    async def __aenter__(self) -> "Connection":
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._channel.close()

    def hold_by(self, lease: str) -> None:
        """From now on everything that a call makes belongs to that lease; with "" to none."""
        self._metadata.pop(_LEASE, None)
        if lease:
            self._metadata[_LEASE] = lease

    async def call(
        self,
        method: str,
        request: Request,
        reply: type[Reply],
        what: str,
        *,
        deadline_s: float = CONTAINERD_CALL_S,
    ) -> Reply:
        """One call: `method` is SERVICE/METHOD below `containerd.services.`, `what` begins the message of an error.

        Raises NotFoundError, AlreadyExistsError, StateError, UnsupportedError, ResourceError, MissingPartError (nobody
        listens) or HostError.
        """
        unary: UnaryUnaryMethod[Request, Reply] = UnaryUnaryMethod(self._channel, _path(method), type(request), reply)
        async with self.step(what, deadline_s):
            with told(what):
                return await unary(request, metadata=self._metadata)

    @asynccontextmanager
    async def stream(
        self, method: str, cardinality: Cardinality, request: type[Request], reply: type[Reply]
    ) -> AsyncIterator[Stream[Request, Reply]]:
        """A call of many messages: each in a `step`, all of it within `told`.

        What containerd has ended it for is known only at its end, if the connection was reset with it.
        """
        made: Stream[Request, Reply] = self._channel.request(
            _path(method), cardinality, request, reply, metadata=self._metadata
        )
        async with made as stream:
            yield stream

    @asynccontextmanager
    async def step(self, what: str, deadline_s: float) -> AsyncIterator[None]:
        """What is done in here has a deadline, and can fail for want of a containerd."""
        try:
            async with asyncio.timeout(deadline_s):
                yield
        except TimeoutError as error:
            raise HostError(f"{what}: containerd has not answered within {deadline_s:g} s") from error
        except OSError as error:
            raise MissingPartError(
                f"{self._address}: {error.strerror or error}", hint="is containerd running, and is this its socket?"
            ) from error


@contextmanager
def told(what: str) -> Iterator[None]:
    """An error of gRPC in here becomes one of ours, whose message begins with `what`."""
    try:
        yield
    except GRPCError as error:
        kind = _ERRORS.get(error.status, HostError)
        raise kind(f"{what}: {error.message or error.status.name.lower()}") from error
    except (StreamTerminatedError, ProtocolError) as error:
        raise HostError(f"{what}: the connection to containerd has ended: {error}") from error


def _path(method: str) -> str:
    return f"/containerd.services.{method}"
