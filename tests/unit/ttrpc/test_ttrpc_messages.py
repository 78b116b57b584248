"""The meaning of Request and Response frames."""

import math

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from hypothesis import given
from hypothesis import strategies as st

from ttrpc import Code, ConnectionClosed, StatusError
from ttrpc.messages import (
    MAX_STATUS_TEXT,
    decode_payload,
    decode_reply,
    decode_request,
    decode_response,
    encode_reply,
    encode_request,
    encode_status,
    read_metadata,
)
from ttrpc.request_pb2 import Response, Status

ERRORS = [code for code in Code if code is not Code.OK]


def test_request_bytes() -> None:
    """Field by field, as the public interface numbers them."""
    data = encode_request("/a.B/C", b"\xff", 0.5, {"K": "v"})
    assert (
        data
        == b"\x0a\x03a.B" + b"\x12\x01C" + b"\x1a\x01\xff" + b"\x20\x80\xca\xb5\xee\x01" + b"\x2a\x06\x0a\x01k\x12\x01v"
    )


def test_request_without_options() -> None:
    request = decode_request(encode_request("/a.B/C", b"", None, None))
    assert (request.service, request.method, request.timeout_nano, len(request.metadata)) == ("a.B", "C", 0, 0)


@pytest.mark.parametrize("timeout_s", [1e-12, 0.001, 3.0, 1e12, math.inf])
def test_timeout_is_never_no_timeout(timeout_s: float) -> None:
    assert decode_request(encode_request("/a.B/C", b"", timeout_s, None)).timeout_nano > 0


@given(st.dictionaries(st.text("abc-", min_size=1), st.lists(st.text(), min_size=1)))
def test_metadata(metadata: dict[str, list[str]]) -> None:
    assert read_metadata(decode_request(encode_request("/a.B/C", b"", None, metadata))) == metadata


def test_metadata_keys_are_lower_case() -> None:
    request = decode_request(encode_request("/a.B/C", b"", None, {"Key": "a", "KEY": ["b"]}))
    assert read_metadata(request) == {"key": ["a", "b"]}


def test_bad_request() -> None:
    with pytest.raises(StatusError, match="Request cannot be decoded") as caught:
        decode_request(b"\xff\xff")
    assert caught.value.code is Code.INVALID_ARGUMENT


@given(st.binary())
def test_reply(payload: bytes) -> None:
    assert decode_response(encode_reply(payload)) == payload


@given(st.sampled_from(ERRORS), st.text())
def test_status(code: Code, message: str) -> None:
    with pytest.raises(StatusError) as caught:
        decode_response(encode_status(StatusError(code, message)))
    assert (caught.value.code, caught.value.message) == (code, message)


def test_status_text_that_is_no_unicode() -> None:
    """A file name may hold any bytes; os.fsdecode makes lone surrogates of them."""
    with pytest.raises(StatusError) as caught:
        decode_response(encode_status(StatusError(Code.NOT_FOUND, "no file \udcff")))
    assert caught.value.message == "no file \\udcff"


def test_status_text_is_cut() -> None:
    with pytest.raises(StatusError) as caught:
        decode_response(encode_status(StatusError(Code.INTERNAL, "x" * 10_000_000)))
    assert caught.value.message == "x" * MAX_STATUS_TEXT


def test_unknown_code() -> None:
    with pytest.raises(StatusError, match="UNKNOWN: odd") as caught:
        decode_response(Response(status=Status(code=99, message="odd")).SerializeToString())
    assert caught.value.code is Code.UNKNOWN


def test_explicit_ok_is_no_error() -> None:
    assert decode_response(Response(status=Status(code=0), payload=b"x").SerializeToString()) == b"x"


def test_bad_response() -> None:
    with pytest.raises(StatusError) as caught:
        decode_response(b"\xff")
    assert caught.value.code is Code.INTERNAL


def test_bad_payloads() -> None:
    """Who sent it is to blame: the client for a request, the server for a reply."""
    with pytest.raises(StatusError, match="StringValue") as caught:
        decode_payload(StringValue, b"\xff")
    assert caught.value.code is Code.INVALID_ARGUMENT
    with pytest.raises(StatusError, match="StringValue") as caught:
        decode_reply(StringValue, b"\xff")
    assert caught.value.code is Code.INTERNAL


def test_ok_is_no_error() -> None:
    with pytest.raises(ValueError, match="OK is not an error"):
        StatusError(Code.OK, "fine")


def test_connection_closed_is_unavailable() -> None:
    assert ConnectionClosed().code is Code.UNAVAILABLE
    assert str(ConnectionClosed("gone")) == "UNAVAILABLE: gone"
