"""The few protobuf messages that `start` and `delete` need, without importing protobuf.

Importing the protobuf runtime costs four times what starting the interpreter does, and
containerd runs both commands once per container. The daemon uses the real thing.
Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

# The name is what type checkers look for; importing it from `typing` would cost the import (shim/entry.py).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_VARINT, _BYTES = 0, 2
# Numbers of fixed size: how many bytes each wire type has.
_FIXED_BYTES = {1: 8, 5: 4}


class WireError(ValueError):
    """The bytes are not a protobuf message."""


def bootstrap(data: bytes, container_id: str, namespace: str) -> tuple[str, int] | None:
    """The socket directory and the log level that containerd 2.3 and newer write to the standard input of `start`.

    Those are fields 9 and 3 of BootstrapParams (api/bootstrap.proto); empty and 0 where they
    are not set. None where `data` is something else: older containerds write their runtime
    options, or nothing. The rule that tells them apart is containerd's own
    (pkg/shim/compat.go): id and namespace must be ours.
    """
    texts = {1: "", 2: "", 9: ""}
    level = 0
    try:
        for number, value in fields(data):
            if number in texts and isinstance(value, bytes):
                texts[number] = value.decode()
            elif number == 3 and isinstance(value, int):
                # An int32: its lower half counts, and a negative one is that less 2^32.
                level = (value + (1 << 31)) % (1 << 32) - (1 << 31)
    except ValueError:  # WireError and UnicodeDecodeError: some other message
        return None
    return (texts[9], level) if (texts[1], texts[2]) == (container_id, namespace) else None


def delete_response(*, pid: int, exit_status: int, exited_at_ns: int) -> bytes:
    """containerd.task.v3.DeleteResponse (api/task.proto); `exited_at_ns` counts from 1970."""
    seconds, nanos = divmod(exited_at_ns, 1_000_000_000)
    timestamp = _number(1, seconds) + _number(2, nanos)
    return _number(1, pid) + _number(2, exit_status) + _block(3, timestamp)


def runtime_info(*, name: str, version: str, features: tuple[str, bytes], annotations: Mapping[str, str]) -> bytes:
    """containerd.types.RuntimeInfo (api/types.proto); `features` is the type URL and the value of an Any."""
    type_url, value = features
    message = _block(1, name.encode()) + _block(2, _block(1, version.encode()))
    message += _block(4, _block(1, type_url.encode()) + _block(2, value))
    for key, text in annotations.items():
        message += _block(5, _block(1, key.encode()) + _block(2, text.encode()))
    return message


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Every field of a message as (number, value): integers for numbers, bytes for the rest.

    Raises WireError where the bytes do not add up.
    """
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise WireError("field number 0")
        if kind == _VARINT:
            value, at = _read_varint(data, at)
            yield number, value
        elif kind == _BYTES:
            size, at = _read_varint(data, at)
            yield number, _cut(data, at, size)
            at += size
        elif kind in _FIXED_BYTES:
            size = _FIXED_BYTES[kind]
            yield number, int.from_bytes(_cut(data, at, size), "little")
            at += size
        else:
            raise WireError(f"wire type {kind}")


def _cut(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise WireError("cut short")
    return data[at : at + size]


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise WireError("cut short")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise WireError("varint of more than ten bytes")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _tag(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _block(number: int, value: bytes) -> bytes:
    return _tag(number, _BYTES) + _varint(len(value)) + value


def _number(number: int, value: int) -> bytes:
    return _tag(number, _VARINT) + _varint(value) if value else b""
