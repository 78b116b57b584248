"""The words of the command: each has its line in the documentation, and a function behind it."""

import inspect
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


def test_a_reader_that_has_had_enough_is_no_error_of_ours() -> None:
    """`qemubox man | head`, as it were: no traceback."""
    command = f"{sys.executable} -m shim.cli config show | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30, cwd=_ROOT, check=False)
    assert "Traceback" not in done.stderr
