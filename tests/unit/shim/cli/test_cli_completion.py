"""`qemubox completion`: bash does complete with it; what is for zsh and fish has every word."""

import subprocess
from pathlib import Path

import pytest

from shim.cli.completion import bash, fish, zsh
from shim.cli.tree import SHELLS, arguments_of, commands, parser
from shim.cli.tree import Command as Tree
from tests.unit.shim.cli.conftest import Command

_COMMANDS = list(commands(parser()))


@pytest.fixture
def complete(tmp_path: Path) -> "Completer":
    return Completer(tmp_path)


class Completer:
    """A bash that has the completion, and a `qemubox` that knows two containers."""

    def __init__(self, directory: Path) -> None:
        (directory / "completion").write_text(bash())
        program = directory / "qemubox"
        program.write_text('#!/bin/sh\n[ "$*" = "ps --quiet" ] && printf "box-one\\nbox-two\\n"\n')
        program.chmod(0o755)
        self._directory = directory

    def __call__(self, *words: str) -> list[str]:
        quoted = " ".join(f"'{word}'" for word in ("qemubox", *words))
        script = (
            f"source ./completion; PATH=.:$PATH; COMP_WORDS=({quoted}); COMP_CWORD={len(words)};"
            ' _qemubox; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            ["bash", "-c", script], check=True, capture_output=True, text=True, timeout=30, cwd=self._directory
        )
        assert done.stderr == ""
        return done.stdout.split("\n")[:-1]


def test_bash_completes_commands(complete: Completer) -> None:
    assert complete("tem") == ["template"]
    assert complete("template", "b") == ["build"]
    assert {each.words[0] for each in _COMMANDS} < set(complete(""))


@pytest.mark.parametrize("command", _COMMANDS, ids=lambda each: " ".join(each.words))
def test_bash_completes_options(complete: Completer, command: Tree) -> None:
    expected = {option for each in arguments_of(command.parser) for option in each.option_strings}
    assert set(complete(*command.words, "-")) == expected | {"-h", "--help"}


def test_bash_completes_containers_paths_and_choices(complete: Completer, tmp_path: Path) -> None:
    assert complete("inspect", "box-t") == ["box-two"]
    assert complete("logs", "--console", "box") == ["box-one", "box-two"]
    assert complete("completion", "") == [*SHELLS] or set(SHELLS) < set(complete("completion", ""))
    (tmp_path / "a file").touch()
    assert complete("man", "a ") == ["a file"]
    assert complete("ps", "--namespace", "b") == [""]


@pytest.mark.parametrize("text", [zsh(), fish()], ids=["zsh", "fish"])
def test_every_word_is_in_the_others(text: str) -> None:
    for command in _COMMANDS:
        assert all(word in text for word in command.words)
        for action in arguments_of(command.parser):
            for option in action.option_strings:
                assert option in text or f"-l {option[2:]}" in text or f"-s {option[1:]}" in text, option


async def test_the_command_prints_them(qemubox: Command) -> None:
    for shell, text in (("bash", bash()), ("zsh", zsh()), ("fish", fish())):
        assert await qemubox("completion", shell) == 0
        assert qemubox.out == text
