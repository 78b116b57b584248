"""Standard input arrives whole, ends when the client ends it, and no sooner."""

import hashlib
import os
import random
import selectors
import subprocess
import time

import pytest

from harness.box import Box

MIB = 1 << 20


def test_twenty_mib_through_keep_their_checksum(box: Box) -> None:
    data = random.Random(20).randbytes(20 * MIB)
    result = box.run("cat", stdin=data, deadline_s=120)
    assert result.code == 0
    assert len(result.stdout) == len(data)
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(data).digest()


def test_twenty_mib_are_summed_inside(box: Box) -> None:
    data = random.Random(21).randbytes(20 * MIB)
    assert box.run("sha256sum", stdin=data, deadline_s=120).text.split()[0] == hashlib.sha256(data).hexdigest()


def test_input_that_nobody_reads_holds_nothing_up(box: Box) -> None:
    assert box.run("sh", "-c", "exit 7", stdin=bytes(MIB)).code == 7


def test_empty_input_ends_when_it_is_closed(box: Box) -> None:
    """Closed once the process runs: the `ctr` of containerd 1.6 forgets an end that comes before the task does."""
    with box.running("sh", "-c", "echo ready; wc -c", stdin=subprocess.PIPE) as ctr:
        assert ctr.stdin is not None
        assert _line(ctr) == b"ready\n"
        ctr.stdin.close()
        assert _line(ctr) == b"0\n"
        assert ctr.wait(30) == 0


@pytest.mark.every_containerd
def test_input_stays_open_until_the_client_closes_it(box: Box) -> None:
    """Line by line, each answered before the next is sent; then the end."""
    with box.running("sh", "-c", 'while read line; do echo "got $line"; done; echo end', stdin=subprocess.PIPE) as ctr:
        assert ctr.stdin is not None
        for word in (b"one", b"two", b"three"):
            ctr.stdin.write(word + b"\n")
            assert _line(ctr) == b"got " + word + b"\n"
        ctr.stdin.close()
        assert _line(ctr) == b"end\n"
        assert ctr.wait(30) == 0


def _line(process: "subprocess.Popen[bytes]") -> bytes:
    """The next line of its output, within 30 s."""
    assert process.stdout is not None
    line = b""
    end = time.monotonic() + 30
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            assert selector.select(max(0.0, end - time.monotonic())), f"no whole line within 30 s: {line!r}"
            data = os.read(process.stdout.fileno(), 1)
            assert data, f"the output ended: {line!r}"
            line += data
    return line
