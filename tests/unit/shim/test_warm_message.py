"""What `start` and a child of the service say to each other, byte by byte."""

import socket
import time

import pytest

from shim.warm import message


def test_messages_are_read_whole_or_not_at_all() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        message.send(ours, message.pack(b"a", b"", b"b" * 70000), time.monotonic() + 5)
        assert message.receive(theirs, time.monotonic() + 5) == [b"a", b"", b"b" * 70000]
        for data, words in (
            (b"\0\0\0\0", "an empty message"),
            (b"\x7f\0\0\0", "are allowed"),
            (b"\0\0\0\5\0\0\0\2x", "a string that ends"),
        ):
            ours.sendall(data)
            with pytest.raises(message.MessageError, match=words):
                message.receive(theirs, time.monotonic() + 5)
        with pytest.raises(message.MessageError, match="timed out"):
            message.receive(theirs, time.monotonic() + 0.01)
        ours.close()
        with pytest.raises(message.MessageError, match="hung up"):
            message.receive(theirs, time.monotonic() + 5)
