"""Every thread of a process is bound to CPUs, and those that it starts later."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from shim.errors import HostError
from shim.vm import affinity

# Says a line when its threads run, and starts one more for each line that it is given.
_THREADS = """
import sys, threading
def run():
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    print(flush=True)
run(); run(); run()
for line in sys.stdin:
    run()
"""


@pytest.fixture
def threads() -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-I", "-c", _THREADS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        yield process
        process.kill()


def _bound(pid: int) -> list[set[int]]:
    return [os.sched_getaffinity(int(thread)) for thread in os.listdir(f"/proc/{pid}/task")]


def test_all_threads_and_those_to_come(threads: "subprocess.Popen[str]") -> None:
    everywhere = os.sched_getaffinity(0)
    one = {max(everywhere)}
    affinity.bind(threads.pid, one)
    assert _bound(threads.pid) == [one] * 4
    assert threads.stdin is not None
    assert threads.stdout is not None
    threads.stdin.write("\n")
    threads.stdin.flush()
    threads.stdout.readline()
    assert _bound(threads.pid) == [one] * 5
    affinity.bind(threads.pid, everywhere)
    assert _bound(threads.pid) == [everywhere] * 5
    assert os.sched_getaffinity(0) == everywhere


def test_a_cpu_that_is_not_there(threads: "subprocess.Popen[str]") -> None:
    with pytest.raises(HostError, match="cannot run the virtual machine on the CPUs 1023: Invalid argument"):
        affinity.bind(threads.pid, {1023})


def test_one_that_has_ended() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
        affinity.bind(process.pid, {0})


def test_one_that_starts_threads_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(10**6))
    monkeypatch.setattr(os, "listdir", lambda _: [str(next(numbers))])
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    with pytest.raises(HostError, match="starts threads faster"):
        affinity.bind(5, {0})
