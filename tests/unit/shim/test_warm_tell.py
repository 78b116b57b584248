"""Whoever changes what the service holds tells it, if there is one, and nobody else."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shim.warm import message
from shim.warm.tell import look_again

# Holds the lock in its name until a SIGHUP comes, and says so.
_SERVICE = """
import os, signal, sys
from shim.claim import claim
claim(sys.argv[1], deadline_s=5)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
print("ready", flush=True)
print(signal.sigtimedwait([signal.SIGHUP], 20).si_signo, flush=True)
"""
Holder = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Holder]:
    monkeypatch.setenv(message.SOCKET_VARIABLE, str(tmp_path / "service.sock"))
    started: list[subprocess.Popen[str]] = []

    def start(word: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", _SERVICE, str(tmp_path), word]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_service_is_told(holder: Holder) -> None:
    service = holder("service")
    assert look_again()
    assert service.communicate(timeout=20)[0] == f"{int(signal.SIGHUP)}\n"


def test_without_a_service_nobody_is(holder: Holder, tmp_path: Path) -> None:
    assert not look_again()
    (tmp_path / "lock").write_text(str(os.getpid()))  # a service that was killed, and whose number is ours
    assert not look_again()


def test_somebody_else_who_has_the_lock_is_left_alone(holder: Holder) -> None:
    other = holder("else")
    assert not look_again()
    assert other.poll() is None
