"""The words of the command: each has its line in the documentation, and a function behind it."""

import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import shim.cli
from shim.cli import main
from shim.cli.roff import synopsis
from shim.cli.tree import Deferred, arguments_of, commands, parser

_ROOT = Path(__file__).parents[4]
_COMMANDS = list(commands(parser()))
_DEAR = ("asyncio", "google", "structlog", "ttrpc.client", "shim.sandbox", "shim.template", "shim.cli.", "qemu")
_TREE = {"shim.cli.tree", "shim.cli.__main__"}


def test_the_modules_docstring_lists_all_commands() -> None:
    text = inspect.getdoc(shim.cli) or ""
    listed = " ".join(line.strip() for line in text.splitlines() if line.startswith("    "))
    assert listed == " ".join(synopsis(each.words, each.parser) for each in _COMMANDS)


@pytest.mark.parametrize("command", _COMMANDS, ids=lambda each: " ".join(each.words))
def test_a_command_has_a_function_and_its_words_are_explained(command: "shim.cli.tree.Command") -> None:
    action = command.parser.get_default("action")
    if isinstance(action, Deferred):
        assert callable(action.find())
    assert callable(action)
    assert command.help
    assert [each.dest for each in arguments_of(command.parser) if not each.help] == []


def test_what_the_command_line_alone_imports() -> None:
    """Each command pays for its own; the service, which shims are forks of, has none of the others."""
    program = "import sys, shim.cli; shim.cli.tree.parser(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=30, cwd=_ROOT
    )
    assert {name for name in done.stdout.split() if name.startswith(_DEAR)} - _TREE == set()


def test_words_that_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["template", "burn"])
    assert ended.value.code == 2
    assert "burn" in capsys.readouterr().err


def _run(words: str, stdout: int) -> subprocess.CompletedProcess[str]:
    """As it is installed: it keeps its output until it is much, or until its end."""
    command = [sys.executable, "-m", "shim.cli", *words.split()]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    pipe = subprocess.PIPE
    return subprocess.run(
        command, stdout=stdout, stderr=pipe, text=True, timeout=30, cwd=_ROOT, env=environment, check=False
    )


@pytest.mark.parametrize("words", ["config show --defaults", "--help"])
def test_a_reader_that_has_had_enough_is_no_error_of_ours(words: str) -> None:
    """As `qemubox ps -q | grep -q box`: nothing is said of it, and the status is one of those that are documented."""
    reading, writing = os.pipe()
    os.close(reading)
    done = _run(words, writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("words", ["config show --defaults", "--help", "check --quick"])
def test_output_that_cannot_be_written_is_an_error_in_one_line(words: str, state_dir: Path) -> None:
    with open("/dev/full", "w") as full:
        done = _run(words, full.fileno())
    assert (done.returncode, done.stderr) == (1, "qemubox: No space left on device\n")


def test_what_the_host_refuses_is_an_error_in_one_line(state_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As where only root may look."""
    config = state_dir.parent / "config.toml"
    config.write_text(f'{config.read_text()}cache_dir = "{state_dir}"\n')
    (state_dir / "templates").touch()
    assert main(["template", "list"]) == 1
    assert capsys.readouterr().err == f"qemubox: {state_dir}/templates: Not a directory\n"


def test_started_without_standard_streams(tmp_path: Path) -> None:
    """No pipe or socket that a command makes takes the place of one."""
    program = (
        "import os, sys; from shim.cli import main; main(['config', 'show', '--defaults']); sys.stdin.read(); "
        f"open({str(tmp_path / 'next')!r}, 'w').write(repr(os.pipe()))"
    )
    done = subprocess.run(
        ["sh", "-c", '"$@" <&- >&- 2>&-', "sh", sys.executable, "-c", program], timeout=30, cwd=_ROOT, check=False
    )
    assert done.returncode == 0
    assert min(ast.literal_eval((tmp_path / "next").read_text())) > 2
