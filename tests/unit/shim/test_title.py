"""What a process shows of itself: the very bytes, and a memory that still grows afterwards."""

import subprocess
import sys

import pytest

_PROGRAM = """
import ctypes, os, sys
from shim import title
kept = []
for count in map(int, sys.argv[1:]):
    words, environment = b"a word\\0" * count, b"NAME=value\\0" * (count // 2)
    title.show(words, environment, b"a-name-of-more-than-15-bytes")
    # The heap grows from where the kernel believes that it ends, and what was in it stays.
    libc = ctypes.CDLL(None)
    libc.sbrk.restype = ctypes.c_void_p
    before = libc.sbrk(0)
    blocks = [bytes([number % 256]) * 50000 for number in range(400)]
    assert libc.sbrk(0) > before
    kept.append(blocks)
    for each in kept:
        assert all(block == bytes([number % 256]) * 50000 for number, block in enumerate(each))
    assert open("/proc/self/cmdline", "rb").read() == words
    assert open("/proc/self/environ", "rb").read() == environment
    assert open("/proc/self/comm", "rb").read() == b"a-name-of-more-\\n"
    if os.fork() == 0:
        title.show(b"child\\0", b"", b"child")
        os._exit(open("/proc/self/cmdline", "rb").read() != b"child\\0")
    assert os.wait()[1] == 0
    assert open("/proc/self/cmdline", "rb").read() == words
"""


@pytest.mark.parametrize("counts", [("1",), ("2000",), ("3", "2000", "1")])
def test_what_is_shown_is_what_was_given(counts: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *counts], env={}, capture_output=True, text=True, check=False, timeout=50
    )
    assert (done.returncode, done.stderr) == (0, "")
