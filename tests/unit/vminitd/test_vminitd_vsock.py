"""The socket to the host never sends more at once than its other side can take, and loses nothing by that."""

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vminitd.vsock import MOST_AT_ONCE, HostSocket, first_bytes


@pytest.fixture
def pair() -> tuple[HostSocket, socket.socket]:
    ours, theirs = socket.socketpair()
    return HostSocket(ours.family, ours.type, ours.proto, ours.detach()), theirs


def test_one_write_is_cut_short(pair: tuple[HostSocket, socket.socket]) -> None:
    ours, theirs = pair
    with ours, theirs:
        assert ours.send(bytes(100_000)) == MOST_AT_ONCE
        assert ours.send(b"abc") == 3
        assert ours.sendmsg([b"", bytes(20_000), bytes(20_000)]) <= MOST_AT_ONCE
        assert ours.sendmsg([b"", b""]) == 0


@given(st.lists(st.binary(max_size=40_000), max_size=4))
def test_what_is_sent_is_the_beginning(buffers: list[bytes]) -> None:
    got, whole = bytes(first_bytes(buffers)), b"".join(buffers)
    assert whole.startswith(got)
    assert len(got) <= MOST_AT_ONCE
    assert bool(got) == bool(whole)


async def test_all_of_it_arrives_through_asyncio(pair: tuple[HostSocket, socket.socket]) -> None:
    ours, theirs = pair
    ours.setblocking(False)
    theirs.setblocking(False)
    data = bytes(range(256)) * 4096
    _, writer = await asyncio.open_connection(sock=ours)
    reader, other = await asyncio.open_connection(sock=theirs)
    for at in range(0, len(data), 70_000):
        writer.write(data[at : at + 70_000])
    writer.write_eof()
    assert await reader.read(-1) == data
    for each in (writer, other):
        each.close()
        await each.wait_closed()
