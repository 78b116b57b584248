"""Who gets a guest's connection, and who is turned away."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shim.errors import MachineError, StateError
from shim.vm.acceptor import CONTROL_TOKEN, PENDING_LIMIT, Acceptor

TOKEN = bytes(range(16))


class Door:
    """An acceptor, and a way to dial it."""

    def __init__(self, path: Path, *, admit: bool, timeout_s: float) -> None:
        self._path = path
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(256)
        self.acceptor = Acceptor(listener, admit=lambda _: admit, token_timeout_s=timeout_s)
        self._dialled: list[socket.socket] = []

    async def dial(self, *pieces: bytes) -> socket.socket:
        caller = socket.socket(socket.AF_UNIX)
        caller.setblocking(False)
        self._dialled.append(caller)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(caller, str(self._path))
        for piece in pieces:
            await loop.sock_sendall(caller, piece)
        return caller

    async def close(self) -> None:
        await self.acceptor.close()
        for caller in self._dialled:
            caller.close()


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    made = Door(tmp_path / "door", admit=True, timeout_s=20)
    yield made
    await made.close()


async def received(sock: socket.socket) -> bytes:
    """What the other end sent; empty when it has closed, be it with our words unread."""
    async with asyncio.timeout(10):
        try:
            return await asyncio.get_running_loop().sock_recv(sock, 100)
        except ConnectionResetError:
            return b""


async def test_zeros_are_the_control_connection(door: Door) -> None:
    caller = await door.dial(CONTROL_TOKEN, b"hello")
    connection = await door.acceptor.control(10)
    assert connection.getblocking() is False
    assert await received(connection) == b"hello"
    connection.send(b"answer")
    assert await received(caller) == b"answer"
    connection.close()


async def test_a_stream_goes_to_who_expects_its_token(door: Door) -> None:
    await door.dial(CONTROL_TOKEN)
    (await door.acceptor.control(10)).close()
    first, second = door.acceptor.expect(TOKEN), door.acceptor.expect(TOKEN[::-1])
    await door.dial(TOKEN[::-1], b"second")
    await door.dial(TOKEN, b"first")
    async with asyncio.timeout(10):
        for future, text in ((first, b"first"), (second, b"second")):
            stream = await future
            assert await received(stream) == text
            stream.close()


async def test_a_token_may_arrive_in_pieces_and_is_read_exactly(door: Door) -> None:
    await door.dial(*(bytes(1) for _ in range(16)), b"rest")
    connection = await door.acceptor.control(10)
    assert await received(connection) == b"rest"
    connection.close()


async def test_there_is_one_control_connection(door: Door) -> None:
    await door.dial(CONTROL_TOKEN)
    (await door.acceptor.control(10)).close()
    assert await received(await door.dial(CONTROL_TOKEN)) == b""
    with pytest.raises(StateError, match="given out already"):
        await door.acceptor.control(10)


async def test_an_unknown_token_is_closed(door: Door) -> None:
    await door.dial(CONTROL_TOKEN)
    (await door.acceptor.control(10)).close()
    assert await received(await door.dial(TOKEN)) == b""


async def test_a_token_works_once(door: Door) -> None:
    await door.dial(CONTROL_TOKEN)
    (await door.acceptor.control(10)).close()
    future = door.acceptor.expect(TOKEN)
    await door.dial(TOKEN)
    async with asyncio.timeout(10):
        (await future).close()
    assert await received(await door.dial(TOKEN)) == b""


async def test_no_stream_comes_before_control(door: Door) -> None:
    future = door.acceptor.expect(TOKEN)
    assert await received(await door.dial(TOKEN)) == b""
    assert not future.done()
    future.cancel()


async def test_a_cancelled_stream_is_turned_away(door: Door) -> None:
    await door.dial(CONTROL_TOKEN)
    (await door.acceptor.control(10)).close()
    door.acceptor.expect(TOKEN).cancel()
    assert await received(await door.dial(TOKEN)) == b""
    again = door.acceptor.expect(TOKEN)
    again.cancel()


async def test_a_stalled_dialler_does_not_keep_others_waiting(door: Door) -> None:
    for piece in (b"", b"\0\0\0\0"):
        await door.dial(piece)
    await door.dial(CONTROL_TOKEN)
    (await door.acceptor.control(10)).close()


async def test_a_stalled_dialler_is_closed_at_its_deadline(tmp_path: Path) -> None:
    door = Door(tmp_path / "short", admit=True, timeout_s=0.05)
    assert await received(await door.dial(b"\0\0\0\0")) == b""
    await door.close()


async def test_a_dialler_that_leaves_is_forgotten(door: Door) -> None:
    (await door.dial(b"\0\0")).close()
    await door.dial(CONTROL_TOKEN)
    (await door.acceptor.control(10)).close()


async def test_too_many_diallers_are_closed_at_once(door: Door) -> None:
    for _ in range(PENDING_LIMIT):
        await door.dial(b"\0")
    assert await received(await door.dial(b"\0")) == b""


@pytest.mark.parametrize("admit", [False, True])
async def test_those_who_queue_leave_the_others_their_turn(tmp_path: Path, admit: bool) -> None:
    """Without, as long as somebody dials, the shim would answer nobody: asyncio accepts who is there without a wait."""
    callers = 2 * PENDING_LIMIT
    path = tmp_path / "queue"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(callers)
    asked, dialled = 0, []
    for _ in range(callers):
        dialled.append(caller := socket.socket(socket.AF_UNIX))
        caller.connect(str(path))

    def judge(_: socket.socket) -> bool:
        nonlocal asked
        asked += 1
        return admit

    acceptor = Acceptor(listener, admit=judge, token_timeout_s=20)
    turns = 0
    while asked < callers:
        await asyncio.sleep(0)
        turns += 1
    assert turns >= callers
    await acceptor.close()
    for caller in dialled:
        caller.close()


async def test_who_is_not_admitted_is_closed(tmp_path: Path) -> None:
    door = Door(tmp_path / "guarded", admit=False, timeout_s=20)
    assert await received(await door.dial(CONTROL_TOKEN)) == b""
    with pytest.raises(MachineError, match=r"did not call within 0\.05 s"):
        await door.acceptor.control(0.05)
    await door.close()


async def test_control_has_a_deadline_and_can_be_waited_for_again(door: Door) -> None:
    with pytest.raises(MachineError, match=r"did not call within 0\.01 s"):
        await door.acceptor.control(0.01)
    await door.dial(CONTROL_TOKEN)
    (await door.acceptor.control(10)).close()


@pytest.mark.parametrize("token", [b"", b"short", bytes(16), bytes(17)])
async def test_what_cannot_be_a_token(door: Door, token: bytes) -> None:
    with pytest.raises(StateError, match="token must be 16 bytes"):
        door.acceptor.expect(token)


async def test_a_token_is_expected_once(door: Door) -> None:
    future = door.acceptor.expect(TOKEN)
    with pytest.raises(StateError, match="expected already"):
        door.acceptor.expect(TOKEN)
    future.cancel()


async def test_close_ends_every_wait_and_leaves_no_descriptor(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    door = Door(tmp_path / "closed", admit=True, timeout_s=20)
    await door.dial(b"\0")
    future = door.acceptor.expect(TOKEN)
    control = asyncio.create_task(door.acceptor.control(10))
    await asyncio.sleep(0)
    await door.close()
    with pytest.raises(MachineError, match="gone"):
        await future
    with pytest.raises(MachineError, match="gone"):
        await control
    with pytest.raises(MachineError, match="gone"):
        door.acceptor.expect(TOKEN)
    await door.acceptor.close()
    assert set(os.listdir("/proc/self/fd")) == before


async def test_close_also_closes_a_control_connection_that_nobody_took(door: Door) -> None:
    caller = await door.dial(CONTROL_TOKEN)
    # A second one is turned away only once the first has been taken in.
    assert await received(await door.dial(CONTROL_TOKEN)) == b""
    await door.acceptor.close()
    assert await received(caller) == b""
