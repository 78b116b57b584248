"""Standard output arrives whole, whatever the process and its reader do."""

import hashlib
import os
import shutil
import threading
from pathlib import Path

import pytest

from harness.box import Box

MIB = 1 << 20
# Every 8 bytes differ from their neighbours, so that a piece that is lost, doubled or moved is seen.
_FIRST = 1000001


def _produce(lines: int) -> str:
    """A command that writes that many lines of 8 bytes."""
    return f"seq {_FIRST} {_FIRST + lines - 1}"


def _expected(lines: int) -> str:
    return hashlib.sha256(b"".join(b"%d\n" % number for number in range(_FIRST, _FIRST + lines))).hexdigest()


def test_eight_mib_of_a_process_that_exits_at_once(box: Box) -> None:
    result = box.run("sh", "-c", _produce(MIB))
    assert len(result.stdout) == 8 * MIB
    assert hashlib.sha256(result.stdout).hexdigest() == _expected(MIB)
    assert result.code == 0


@pytest.mark.release
def test_eight_mib_on_both_streams_at_once(box: Box) -> None:
    produce = _produce(MIB // 2)
    result = box.run("sh", "-c", f"{produce} & {produce} >&2; wait")
    expected = _expected(MIB // 2)
    assert hashlib.sha256(result.stdout).hexdigest() == expected
    assert hashlib.sha256(result.stderr).hexdigest() == expected


class _FifoReader(threading.Thread):
    """Reads a FIFO to its end, beginning only when told to."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.begin = threading.Event()
        self.digest = hashlib.sha256()
        self.size = 0
        # Non-blocking, so that opening does not wait for a writer; reading waits again.
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(self._fd, True)

    def run(self) -> None:
        with os.fdopen(self._fd, "rb", buffering=0) as fifo:
            self.begin.wait(60)
            while data := fifo.read(65536):
                self.size += len(data)
                self.digest.update(data)


def test_delete_right_after_wait_loses_nothing(box: Box) -> None:
    """The task is deleted the moment its exit is known, while its reader has only just begun.

    The FIFOs are this test's: `ctr run -d --fifo-dir` names them and leaves.
    """
    fifos = Path(box.containerd.cell.directory, "tmp", "fifos")
    fifos.mkdir()
    container = box.new_id()
    with box.events() as events:
        box.start(
            "sh",
            "-c",
            f"read go; {_produce(MIB)}",
            options=("--fifo-dir", str(fifos)),
            container=container,
        )
        stdin, stdout, stderr = (next(fifos.rglob(f"*{name}")) for name in ("stdin", "stdout", "stderr"))
        readers = [_FifoReader(stdout), _FifoReader(stderr)]
        for reader in readers:
            reader.start()
        with stdin.open("wb", buffering=0) as feeder:
            feeder.write(b"go\n")
            readers[1].begin.set()
            readers[0].begin.set()
            events.wait("/tasks/exit", container)
            box.delete_task(container).checked()
    for reader in readers:
        reader.join(30)
        assert not reader.is_alive(), "the FIFO has no end"
    assert (readers[0].size, readers[0].digest.hexdigest()) == (8 * MIB, _expected(MIB))
    assert readers[1].size == 0
    box.remove(container).checked()
    shutil.rmtree(fifos)


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537])
def test_sizes_around_a_pipe_s(box: Box, size: int) -> None:
    result = box.run("head", "-c", str(size), "/dev/zero")
    assert (len(result.stdout), result.code) == (size, 0)
