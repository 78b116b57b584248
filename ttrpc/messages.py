"""What the data of Request and Response frames mean. Pure.

The text of a status is made valid UTF-8 before it is sent: an error may name a file whose name is not, and a status
that cannot be sent would leave the caller waiting for ever.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from ttrpc.request_pb2 import KeyValue, Request, Response, Status
from ttrpc.status import Code, StatusError

M = TypeVar("M", bound=Message)

Metadata = Mapping[str, str | Sequence[str]]
"""Given with a call: one value or several for a key. Keys are lower case on the wire."""

MAX_STATUS_TEXT = 64 << 10
"""Characters of a status message that are sent; the rest is cut off, so that the status itself arrives."""

NANOSECONDS = 1_000_000_000

MAX_TIMEOUT_S = float(2**62 // NANOSECONDS)
"""The longest timeout that is put on the wire, 146 years: nanoseconds are 63 bits there."""


def encode_request(path: str, payload: bytes, timeout_s: float | None, metadata: Metadata | None) -> bytes:
    """Data of a Request frame. `path` is "/package.Service/Method"; no timeout means for ever."""
    service, _, method = path.removeprefix("/").rpartition("/")
    # 0 stands for "no timeout" on the wire, so the shortest is 1 ns.
    timeout_nano = 0 if timeout_s is None else max(1, int(min(timeout_s, MAX_TIMEOUT_S) * NANOSECONDS))
    pairs = [] if metadata is None else [KeyValue(key=key, value=value) for key, value in _pairs(metadata)]
    return Request(
        service=service, method=method, payload=payload, timeout_nano=timeout_nano, metadata=pairs
    ).SerializeToString()


def _pairs(metadata: Metadata) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for key, values in metadata.items():
        for value in [values] if isinstance(values, str) else values:
            pairs.append((key.lower(), value))
    return pairs


def decode_request(data: bytes) -> Request:
    """Raises StatusError INVALID_ARGUMENT if `data` are no Request."""
    return decode_payload(Request, data)


def read_metadata(request: Request) -> dict[str, list[str]]:
    """The values of each key, in the order in which they came."""
    metadata: dict[str, list[str]] = {}
    for pair in request.metadata:
        metadata.setdefault(pair.key.lower(), []).append(pair.value)
    return metadata


def encode_reply(payload: bytes) -> bytes:
    """Data of a Response frame that says OK."""
    return Response(payload=payload).SerializeToString()


def encode_status(error: StatusError) -> bytes:
    """Data of a Response frame that says `error`."""
    text = error.message[:MAX_STATUS_TEXT].encode("utf-8", "backslashreplace").decode()
    return Response(status=Status(code=error.code, message=text)).SerializeToString()


def decode_response(data: bytes) -> bytes:
    """The payload of a Response; raises the StatusError that it carries, or INTERNAL if it is no Response."""
    try:
        response = Response.FromString(data)
    except DecodeError as error:
        raise StatusError(Code.INTERNAL, f"the server's response cannot be decoded: {error}") from error
    if response.status.code != Code.OK:
        raise StatusError(Code.from_wire(response.status.code), response.status.message)
    return response.payload


def decode_payload(message_type: type[M], data: bytes) -> M:
    """A message from a client; raises StatusError INVALID_ARGUMENT if `data` are none of that type."""
    try:
        return message_type.FromString(data)
    except DecodeError as error:
        raise StatusError(
            Code.INVALID_ARGUMENT, f"{message_type.DESCRIPTOR.full_name} cannot be decoded: {error}"
        ) from error


def decode_reply(message_type: type[M], data: bytes) -> M:
    """A message from a server; raises StatusError INTERNAL if `data` are none of that type."""
    try:
        return message_type.FromString(data)
    except DecodeError as error:
        raise StatusError(
            Code.INTERNAL, f"the server's {message_type.DESCRIPTOR.full_name} cannot be decoded: {error}"
        ) from error


def late(path: str, timeout_s: float) -> StatusError:
    """The error for a call that was not done after `timeout_s` seconds."""
    return StatusError(Code.DEADLINE_EXCEEDED, f"{path} was not done within {timeout_s:g} s")
