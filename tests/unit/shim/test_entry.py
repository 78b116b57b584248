"""The binary's words and statuses, as containerd and people see them."""

import os
import subprocess
from pathlib import Path

import pytest

from api import types_pb2
from shim import entry
from shim.version import BINARY_NAME, RUNTIME_NAME, VERSION
from tests.unit.shim.program import COMMAND, Answer, Host


def _run(*words: str, stdin: bytes = b"") -> Answer:
    done = subprocess.run([*COMMAND, *words], input=stdin, capture_output=True, check=False, cwd="/", env={})
    return Answer(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("word", ["-v", "-version"])
def test_version(word: str) -> None:
    text = f"{BINARY_NAME}:\n  Version:  {VERSION}\n  Revision: \n  Runtime:  {RUNTIME_NAME}\n"
    assert _run(word) == Answer(0, text.encode(), b"")


@pytest.mark.parametrize("stdin", [b"", b"\x0a\x03any options"])
def test_info_is_nothing_but_the_message(stdin: bytes) -> None:
    answer = _run("-info", stdin=stdin)
    assert (answer.status, answer.stderr) == (0, b"")
    info = types_pb2.RuntimeInfo.FromString(answer.stdout)
    assert info.name == RUNTIME_NAME
    assert info.SerializeToString(deterministic=True) == answer.stdout


def test_usage() -> None:
    assert _run("-h").status == 0
    answer = _run()
    assert (answer.status, answer.stdout) == (2, b"")
    assert answer.stderr.startswith(b"usage: containerd-shim-qemubox-v1 ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-nonsense"], "flag provided but not defined: -nonsense"),
        (["-namespace", "ns", "-id", "c", "stop"], "unknown action 'stop': expected one of start, delete"),
        (["-id", "c", "start"], "-namespace must be given with start"),
        (["-namespace", "ns", "delete"], "-id must be given with delete"),
        (["-\udcff"], "flag provided but not defined: -\\udcff"),
        (["-a\nb"], "flag provided but not defined: -a b"),
    ],
)
def test_an_error_is_one_line_and_status_1(words: list[str], message: str) -> None:
    assert _run(*words) == Answer(1, b"", f"{BINARY_NAME}: {message}".encode())


def test_at_a_terminal_the_line_ends() -> None:
    controller, terminal = os.openpty()
    done = subprocess.run([*COMMAND, "stop"], check=False, cwd="/", env={}, stderr=terminal, stdin=subprocess.DEVNULL)
    os.close(terminal)
    assert (done.returncode, os.read(controller, 1000)[-10:]) == (1, b", delete\r\n")
    os.close(controller)


def test_an_unexpected_error_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(entry, "_run", lambda *_arguments: int("seven"))
    assert entry.main([]) == 1
    assert capfd.readouterr() == ("", f"{BINARY_NAME}: invalid literal for int() with base 10: 'seven'")
    monkeypatch.setattr(entry, "_run", lambda *_arguments: next(iter(())))
    assert entry.main([]) == 1
    assert capfd.readouterr() == ("", f"{BINARY_NAME}: StopIteration")


@pytest.mark.parametrize("action", ["start", "delete"])
def test_a_broken_configuration_is_named(host: Host, action: str) -> None:
    shim = host.shim()
    host.config.write_text("[vm]\naccell = 'kvm'\n")
    answer = shim.start() if action == "start" else shim.delete()
    assert (answer.status, answer.stdout) == (1, b"")
    assert answer.stderr.startswith(f"{BINARY_NAME}: {host.config}: unknown key vm.accell = 'kvm' (".encode())
    assert answer.stderr.count(b"\n") == 0
    assert os.listdir(shim.bundle) == ["log"]
    assert not host.state.exists()


def test_nothing_is_written_beside_the_program() -> None:
    """A read-only prefix is no hindrance, and neither is a home directory that is not there."""
    done = subprocess.run(
        [*COMMAND, "-v"], capture_output=True, check=False, cwd=Path("/proc"), env={"HOME": "/nonexistent"}
    )
    assert (done.returncode, done.stderr) == (0, b"")
