"""All streams of one process together: which there are, when they are drained, that none stays open."""

import asyncio
import os
from pathlib import Path

import pytest

from api.frames import END, header
from shim.errors import HostError, UnsupportedError
from shim.task.stdio import ProcessStreams
from tests.unit.shim.observe import same_fds
from tests.unit.shim.task.ends import Guest, read_all, read_end, soon


@pytest.fixture
def fifos(tmp_path: Path) -> dict[str, str]:
    paths = {name: str(tmp_path / name) for name in ("stdin", "stdout", "stderr")}
    for path in paths.values():
        os.mkfifo(path)
    return paths


async def test_a_process_has_the_streams_that_are_named(fifos: dict[str, str]) -> None:
    with same_fds():
        for terminal, left_out, expected in (
            (False, "", ("stdin", "stdout", "stderr")),
            (True, "", ("stdin", "stdout")),
            (False, "stdin", ("stdout", "stderr")),
            (False, "stderr", ("stdin", "stdout")),
        ):
            paths = {name: "" if name == left_out else path for name, path in fifos.items()}
            streams = ProcessStreams(terminal=terminal, **paths)
            assert streams.names == expected
            await streams.close()
            await streams.close()
        streams = ProcessStreams(terminal=False, stdin="", stdout="", stderr="")
        assert streams.names == ()
        assert await soon(streams.drained()) == []
        streams.finish_input()
        await streams.close()


@pytest.mark.parametrize(("bad", "error"), [("/nonexistent/x", HostError), ("ttrpc+unix:///x", UnsupportedError)])
def test_one_that_cannot_be_opened_leaves_none_open(fifos: dict[str, str], bad: str, error: type[Exception]) -> None:
    with same_fds():
        for name in fifos:
            with pytest.raises(error):
                ProcessStreams(terminal=False, **{**fifos, name: bad})


async def test_drained_waits_for_all_output(fifos: dict[str, str]) -> None:
    with same_fds():
        streams = ProcessStreams(terminal=False, **fifos)
        guests = {name: Guest() for name in fifos}
        readers = {name: read_end(Path(fifos[name])) for name in ("stdout", "stderr")}
        for name, guest in guests.items():
            streams.connect(name, guest.ours)
        draining = asyncio.create_task(streams.drained())
        await guests["stdout"].send(header(3) + b"out" + END)
        assert await read_all(readers["stdout"]) == b"out"
        await asyncio.sleep(0)
        assert not draining.done()
        await guests["stderr"].send(header(100_000) + bytes(100_000) + END)
        await asyncio.wait([draining], timeout=0.05)
        assert not draining.done()  # the reader has not taken what the FIFO cannot hold
        assert len(await read_all(readers["stderr"])) == 100_000
        assert await soon(draining) == []
        streams.finish_input()
        assert await guests["stdin"].receive() == b""
        assert guests["stdin"].ended
        await soon(streams.close())
        for guest in guests.values():
            guest.close()
        for reader in readers.values():
            os.close(reader)


async def test_output_that_was_lost_is_told(fifos: dict[str, str], tmp_path: Path) -> None:
    streams = ProcessStreams(terminal=False, stdin="", stdout="/dev/full", stderr=fifos["stderr"])
    guests = {name: Guest() for name in streams.names}
    for name, guest in guests.items():
        streams.connect(name, guest.ours)
    for guest in guests.values():
        await guest.send(header(1) + b"x" + END)
    assert await soon(streams.drained()) == ["stdout: [Errno 28] No space left on device"]
    await streams.close()
    for guest in guests.values():
        guest.close()


async def test_closing_at_once_closes_connections_too(fifos: dict[str, str]) -> None:
    """A task that is cancelled before its first step cannot close anything itself."""
    with same_fds():
        streams = ProcessStreams(terminal=False, **fifos)
        guests = {name: Guest() for name in fifos}
        for name, guest in guests.items():
            streams.connect(name, guest.ours)
        await streams.close()  # not by way of another task: none of the three has begun
        for guest in guests.values():
            assert await guest.closed()
            guest.close()
