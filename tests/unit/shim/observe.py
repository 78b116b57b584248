"""What the kernel says about processes, locks and file descriptors: the tests' eyes."""

import gc
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

DEADLINE_S = 40.0

Child = subprocess.Popen[bytes]


class Spawn(Protocol):
    """The fixture `spawn`."""

    def __call__(self, program: str, *words: str) -> Child:
        """Start a Python program from its text."""


def until(condition: Callable[[], bool], what: str) -> None:
    """Return once `condition` holds; fail after DEADLINE_S. For what the kernel does not tell by a file descriptor."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.002)


@contextmanager
def same_fds() -> Iterator[None]:
    """Fail if the block leaves a file descriptor open, or closes one that was."""
    gc.collect()  # what earlier tests have left to be collected goes now
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before


def wait_in_flock(pid: int) -> None:
    """Return once the process waits for a file lock: /proc/locks marks waiters by an arrow (proc_locks(5))."""

    def waits() -> bool:
        with open("/proc/locks") as file:
            return any("->" in line and str(pid) in line.split() for line in file)

    until(waits, f"process {pid} waits for a lock")


def wait_for_words(pid: int, word: str) -> None:
    """Return once a started program has its command line: exec(2) closes what Popen waits for a moment earlier."""
    until(lambda: word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes(), f"{word} stands in a command line")


def line_of(child: Child) -> str:
    """The next line that a child writes; empty where it has ended."""
    assert child.stdout is not None
    return child.stdout.readline().decode().strip()


def release(child: Child) -> None:
    """End a child's standard input, which is what it waits for."""
    assert child.stdin is not None
    child.stdin.close()
