"""Blobs of containerd's content store, in pieces."""

import contextlib
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from google.protobuf import empty_pb2
from grpclib.client import Stream
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from api import containerd_pb2 as api
from shim.containerd.connection import Connection, told
from shim.deadlines import CONTAINERD_COMMIT_S, CONTAINERD_WRITE_S
from shim.errors import HostError, NotFoundError, QemuboxError, UnsupportedError

_SERVICE: Final = "content.v1.Content"
_WriteStream = Stream[api.WriteContentRequest, api.WriteContentResponse]


class Content:
    """The content store, as one namespace sees it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def info(self, digest: str) -> api.ContentInfo | None:
        """Size and labels of a blob; None if it is not there."""
        try:
            reply = await self._connection.call(
                f"{_SERVICE}/Info", api.InfoRequest(digest=digest), api.InfoResponse, f"blob {digest}"
            )
        except NotFoundError:
            return None
        return reply.info

    async def read(self, digest: str, limit: int) -> bytes:
        """A small blob whole, checked against its digest.

        Raises NotFoundError, UnsupportedError for one of more than `limit` bytes, HostError for one that is damaged.
        """
        what = f"blob {digest}"
        data = bytearray()
        stream: Stream[api.ReadContentRequest, api.ReadContentResponse]
        with told(what):
            async with (
                self._connection.step(what, CONTAINERD_WRITE_S),
                self._connection.stream(
                    f"{_SERVICE}/Read", Cardinality.UNARY_STREAM, api.ReadContentRequest, api.ReadContentResponse
                ) as stream,
            ):
                await stream.send_message(api.ReadContentRequest(digest=digest), end=True)
                async for piece in stream:
                    data += piece.data
                    if len(data) > limit:
                        raise UnsupportedError(f"{what}: more than {limit} bytes, which no such document has")
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            raise HostError(f"{what}: is damaged: its content has another digest", hint="pull the image again")
        return bytes(data)

    async def put(self, ref: str, data: bytes, labels: Mapping[str, str]) -> str:
        """Store a small blob; its digest."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        async with self.writer(ref) as writer:
            await writer.write(data)
            await writer.commit(digest, labels)
        if await self.info(digest) is None:  # it was there, and has been collected since
            raise HostError(f"blob {digest}: was removed as soon as it was written")
        await self._label(digest, labels)
        return digest

    @asynccontextmanager
    async def writer(self, ref: str) -> "AsyncIterator[Writer]":
        """Write a blob under the name `ref`, which nobody else may be using; gone if it was not committed."""
        writer: Writer | None = None
        try:
            with told(f"write {ref}"):
                # Left by an error, it is reset.
                async with self._connection.stream(
                    f"{_SERVICE}/Write", Cardinality.STREAM_STREAM, api.WriteContentRequest, api.WriteContentResponse
                ) as stream:
                    writer = Writer(self._connection, stream, ref)
                    yield writer
        finally:
            if writer is not None and not writer.committed:
                await self._abort(ref)

    async def _abort(self, ref: str) -> None:
        """Best effort: what is left of a write goes with the lease that it belongs to."""
        with contextlib.suppress(QemuboxError):
            await self._connection.call(
                f"{_SERVICE}/Abort", api.AbortRequest(ref=ref), empty_pb2.Empty, f"abort of {ref}"
            )

    async def _label(self, digest: str, labels: Mapping[str, str]) -> None:
        """Labels given with a write are lost where the blob was there already."""
        request = api.UpdateContentRequest(info=api.ContentInfo(digest=digest, labels=labels))
        request.update_mask.paths.extend(f"labels.{key}" for key in labels)
        await self._connection.call(f"{_SERVICE}/Update", request, api.UpdateContentResponse, f"labels of {digest}")


class Writer:
    """A blob that is being written."""

    def __init__(self, connection: Connection, stream: _WriteStream, ref: str) -> None:
        self._connection = connection
        self._stream = stream
        self._ref = ref
        self._offset = 0
        self.committed = False

    async def write(self, data: bytes) -> None:
        """Add `data`, at most a few MiB. Raises as Connection.call."""
        request = api.WriteContentRequest(action=api.WRITE, ref=self._ref, offset=self._offset, data=data)
        reply = await self._exchange(request, CONTAINERD_WRITE_S)
        self._offset += len(data)
        if reply.offset != self._offset:
            raise HostError(f"write {self._ref}: containerd is at {reply.offset} instead of {self._offset}")

    async def commit(self, digest: str, labels: Mapping[str, str]) -> None:
        """End it as the blob `digest`, which containerd checks. That it is there already is no error."""
        request = api.WriteContentRequest(
            action=api.COMMIT, ref=self._ref, offset=self._offset, total=self._offset, expected=digest, labels=labels
        )
        try:
            await self._exchange(request, CONTAINERD_COMMIT_S)
        except GRPCError as error:
            if error.status is not Status.ALREADY_EXISTS:
                raise
        self.committed = True

    async def _exchange(self, request: api.WriteContentRequest, deadline_s: float) -> api.WriteContentResponse:
        """Send and receive; the last message ends the stream, and so does containerd with an error."""
        last = request.action == api.COMMIT
        async with self._connection.step(f"write {self._ref}", deadline_s):
            await self._stream.send_message(request, end=last)
            reply = await self._stream.recv_message()
            if reply is None and not last:
                await self._stream.end()
            if reply is None or last:
                await self._stream.recv_trailing_metadata()  # raises what containerd has ended it for
        if reply is None:
            raise HostError(f"write {self._ref}: containerd has ended it")
        return reply
