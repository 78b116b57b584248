"""The host's ends of the streams: real FIFOs, readers and writers that come and go."""

import asyncio
import contextlib
import os
from pathlib import Path

import pytest

from shim.errors import HostError, UnsupportedError
from shim.task.fifo import open_input, open_output
from tests.unit.shim.observe import same_fds

_DEADLINE_S = 20


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "stream"
    os.mkfifo(path)
    return path


def _read_end(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def _write_end(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_NONBLOCK)


async def test_output_waits_for_a_reader_and_ends_at_close(fifo: Path) -> None:
    with same_fds():
        sink = open_output(str(fifo))
        await sink.write(memoryview(b"hello"))  # nobody reads yet, and that is no error
        reader = _read_end(fifo)
        assert os.read(reader, 100) == b"hello"
        with pytest.raises(BlockingIOError):
            os.read(reader, 100)
        sink.close()
        assert os.read(reader, 100) == b""
        sink.close()
        os.close(reader)


async def test_a_reader_may_go_and_another_come(fifo: Path) -> None:
    with same_fds():
        sink = open_output(str(fifo))
        first = _read_end(fifo)
        await sink.write(memoryview(b"one"))
        assert os.read(first, 100) == b"one"
        os.close(first)
        await sink.write(memoryview(b"two"))  # no SIGPIPE, nothing lost
        second = _read_end(fifo)
        assert os.read(second, 100) == b"two"
        sink.close()
        os.close(second)


async def test_a_full_fifo_stops_the_writer_until_it_is_read(fifo: Path) -> None:
    sink = open_output(str(fifo))
    reader = _read_end(fifo)
    data = os.urandom(300_000)
    writing = asyncio.create_task(sink.write(memoryview(data)))
    got = bytearray()
    while len(got) < len(data):
        await asyncio.sleep(0)
        # What is neither read nor in the pipe (65536 bytes) keeps the writer waiting.
        assert not writing.done() or len(got) + 65536 >= len(data)
        try:
            got += os.read(reader, 4096)
        except BlockingIOError:
            continue
    await asyncio.wait_for(writing, _DEADLINE_S)
    assert got == data
    sink.close()
    os.close(reader)


async def test_a_writer_that_is_cancelled_leaves_nothing_on_the_loop(fifo: Path) -> None:
    with same_fds():
        sink = open_output(str(fifo))
        writing = asyncio.create_task(sink.write(memoryview(bytes(1 << 20))))
        await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait([writing])
        assert writing.cancelled()
        sink.close()
    # A watcher that was forgotten would now be in the way of one for a descriptor of the same number.
    again, reader = open_output(str(fifo)), _read_end(fifo)
    writing = asyncio.create_task(again.write(memoryview(bytes(1 << 20))))
    while not writing.done():
        await asyncio.sleep(0)
        with contextlib.suppress(BlockingIOError):
            os.read(reader, 65536)
    await writing
    again.close()
    os.close(reader)


async def test_a_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out put"
    with same_fds():
        for text in (b"one", b"two"):
            sink = open_output(f"file://{tmp_path}/new/out%20put")
            await sink.write(memoryview(text))
            sink.close()
    assert path.read_bytes() == b"onetwo"
    sink = open_output(str(path))
    await sink.write(memoryview(b"three"))
    sink.close()
    assert path.read_bytes() == b"onetwothree"


async def test_dev_null() -> None:
    with same_fds():
        sink, source = open_output("/dev/null"), open_input("/dev/null")
        await sink.write(memoryview(b"x"))
        assert await source.read(10) == b""
        sink.close()
        source.close()


@pytest.mark.parametrize("address", ["/nonexistent/x", "fifo:///nonexistent/x"])
def test_a_fifo_that_is_gone_is_an_error_and_no_new_file(address: str) -> None:
    with same_fds():
        with pytest.raises(HostError, match=r"cannot open .* for the container's output: No such file"):
            open_output(address)
        with pytest.raises(HostError, match=r"cannot open .* for the container's input: No such file"):
            open_input(address)
    assert not Path("/nonexistent").exists()


def test_a_fifo_whose_reader_is_gone_is_not_made_a_file(tmp_path: Path) -> None:
    with pytest.raises(HostError):
        open_output(str(tmp_path / "gone"))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("address", ["binary:///bin/x?a=b", "ttrpc+unix:///s", "http://x/y"])
def test_other_schemes_are_refused_by_name(address: str) -> None:
    scheme = address.partition(":")[0].replace("+", r"\+")
    for opening in (open_output, open_input):
        with pytest.raises(UnsupportedError, match=f"{scheme}:// is not supported here"):
            opening(address)


@pytest.mark.parametrize("name", ["a b", "100%41", "x?y", "a#b", "[", "colon:colon", "//double"])
async def test_a_plain_path_is_taken_as_it_stands(tmp_path: Path, name: str) -> None:
    path = f"{tmp_path}/{name}"
    Path(path).touch()
    sink = open_output(path)
    await sink.write(memoryview(b"x"))
    sink.close()
    assert Path(path).read_bytes() == b"x"


def test_no_descriptor_is_left_when_the_second_open_fails(fifo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def scarce(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_WRONLY:
            raise OSError(24, "Too many open files")
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", scarce)
    with same_fds():
        for opening in (open_output, open_input):
            with pytest.raises(HostError, match="Too many open files"):
                opening(str(fifo))


async def test_input_goes_on_after_its_writer_has_gone(fifo: Path) -> None:
    with same_fds():
        source = open_input(str(fifo))
        for text in (b"one", b"two"):
            writer = _write_end(fifo)
            os.write(writer, text)
            os.close(writer)
            assert await asyncio.wait_for(source.read(100), _DEADLINE_S) == text
        source.close()
        source.close()


async def test_finishing_lets_through_what_is_there(fifo: Path) -> None:
    source = open_input(str(fifo))
    writer = _write_end(fifo)
    os.write(writer, b"x" * 10_000)
    source.finish()
    got = b""
    while data := await asyncio.wait_for(source.read(4096), _DEADLINE_S):
        got += data
    assert got == b"x" * 10_000
    assert await asyncio.wait_for(source.read(10), _DEADLINE_S) == b""
    source.close()
    os.close(writer)


async def test_finishing_wakes_a_reader_that_waits(fifo: Path) -> None:
    with same_fds():
        source = open_input(str(fifo))
        reading = asyncio.create_task(source.read(10))
        await asyncio.sleep(0)
        source.finish()
        assert await asyncio.wait_for(reading, _DEADLINE_S) == b""
        source.close()


async def test_data_wakes_a_reader_that_waits(fifo: Path) -> None:
    source = open_input(str(fifo))
    reading = asyncio.create_task(source.read(10))
    await asyncio.sleep(0)
    writer = _write_end(fifo)
    os.write(writer, b"now")
    assert await asyncio.wait_for(reading, _DEADLINE_S) == b"now"
    os.close(writer)
    source.close()


async def test_a_file_as_input_ends_by_itself(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"abc")
    source = open_input(f"file://{tmp_path}/in")
    assert await source.read(10) == b"abc"
    assert await source.read(10) == b""
    source.close()


def test_no_descriptor_reaches_a_child(fifo: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    sink, source = open_output(str(fifo)), open_input(str(fifo))
    for fd in set(os.listdir("/proc/self/fd")) - before:
        if os.path.exists(f"/proc/self/fd/{fd}"):
            assert not os.get_inheritable(int(fd))
    sink.close()
    source.close()
