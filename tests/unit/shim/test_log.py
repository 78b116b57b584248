"""The log goes into a FIFO that comes and goes, and never stops anybody."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from shim.log import FifoWriter, open_log
from tests.unit.shim.observe import same_fds


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "log"
    os.mkfifo(path)
    yield path
    structlog.reset_defaults()


def _reader(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def test_a_line_arrives(fifo: Path) -> None:
    with same_fds():
        reader, writer = _reader(fifo), FifoWriter(fifo)
        assert writer.write("one\n") == 4
        writer.flush()
        assert os.read(reader, 100) == b"one\n"
        os.close(reader)
        writer.close()
        writer.close()


def test_without_a_reader_lines_are_dropped(fifo: Path) -> None:
    with same_fds():
        writer = FifoWriter(fifo)
        writer.write("lost\n")
        reader = _reader(fifo)
        writer.write("kept\n")
        assert os.read(reader, 100) == b"kept\n"
        writer.close()
        os.close(reader)


def test_without_a_file_lines_are_dropped(tmp_path: Path) -> None:
    with same_fds():
        assert FifoWriter(tmp_path / "gone").write("lost\n") == 5


def test_the_next_reader_gets_the_next_line(fifo: Path) -> None:
    """containerd restarts: the write into the old pipe fails, and the line goes to the new one."""
    with same_fds():
        writer, first = FifoWriter(fifo), _reader(fifo)
        writer.write("one\n")
        os.close(first)
        writer.write("lost: nobody is there\n")
        second = _reader(fifo)
        writer.write("two\n")
        assert os.read(second, 100) == b"two\n"
        os.close(second)
        writer.close()


def test_a_new_fifo_under_the_old_name_gets_the_next_line(fifo: Path) -> None:
    with same_fds():
        writer, first = FifoWriter(fifo), _reader(fifo)
        writer.write("one\n")
        os.close(first)
        fifo.unlink()
        os.mkfifo(fifo)
        second = _reader(fifo)
        writer.write("two\n")
        assert os.read(second, 100) == b"two\n"
        os.close(second)
        writer.close()


def test_a_full_fifo_drops_lines_and_cuts_none_in_two(fifo: Path) -> None:
    reader, writer = _reader(fifo), FifoWriter(fifo)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 8192)
    long = "x" * 5000 + "\n"
    for _ in range(4):
        writer.write(long)
    taken = os.read(reader, 1 << 20)
    assert len(long) < len(taken) <= 8192
    assert not taken.endswith(b"\n")
    writer.write("next\n")
    writer.write("after\n")
    # What was cut off is a line of its own, and so is what follows.
    assert (taken + os.read(reader, 100)).split(b"\n")[-3:] == [b"next", b"after", b""]
    os.close(reader)
    writer.close()


def test_odd_characters_do_no_harm(fifo: Path) -> None:
    reader, writer = _reader(fifo), FifoWriter(fifo)
    writer.write("\udcff\N{SNOWMAN}\n")
    assert os.read(reader, 100) == "?\N{SNOWMAN}\n".encode()
    os.close(reader)
    writer.close()


def test_an_event_is_one_line_with_the_container(fifo: Path) -> None:
    reader = _reader(fifo)
    log = open_log(fifo, level="info", namespace="ns", container_id="c 1")
    log.debug("not asked for")
    try:
        raise OSError(5, 'quoted "text"\nsecond line')
    except OSError:
        log.exception("it broke", pid=7)
    log.warning("second", flag=True)
    first, second, rest = os.read(reader, 1 << 16).split(b"\n")
    assert first.startswith(b"time=2")
    assert b' level=error msg="it broke" pid=7 namespace=ns id="c 1" exception="Traceback' in first
    assert b" level=warning msg=second flag" in second
    assert rest == b""
    os.close(reader)


@pytest.mark.parametrize(("level", "count"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_levels(fifo: Path, level: str, count: int) -> None:
    reader = _reader(fifo)
    log = open_log(fifo, level=level, namespace="ns", container_id="c")
    log.debug("a")
    log.info("b")
    log.warning("c")
    log.error("d")
    assert os.read(reader, 1 << 16).count(b"\n") == count
    os.close(reader)
