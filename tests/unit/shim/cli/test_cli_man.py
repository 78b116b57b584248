"""`qemubox man`: every option and key is told of, and roff takes the pages."""

import re
import subprocess
from pathlib import Path

import pytest

from shim.arguments import _BOOLEAN_FLAGS, _TEXT_FLAGS
from shim.cli.man import pages
from shim.cli.tree import arguments_of, commands, parser
from shim.config import Config
from tests.unit.shim.cli.conftest import Command

_PAGES = pages()
# Spellings of others, and what is taken because the reference shim has it.
_UNTOLD = {"version", "h", "help", "socket", "debug-socket"}
# What may stand at the beginning of a line: the requests of man(7) that we use.
_REQUESTS = {".TH", ".SH", ".SS", ".TP", ".PP", ".br", ".nf", ".fi"}


def _read(name: str) -> str:
    """A page's words, without roff's."""
    text = re.sub(r"\\f[BIPR]", "", _PAGES[name])
    return text.replace("\\-", "-").replace("\\(aq", "'").replace("\\(dq", '"')


def test_every_command_and_option() -> None:
    text = _read("qemubox.8")
    for command in commands(parser()):
        assert f".SS {' '.join(command.words)}\n" in text
        part = text.partition(f".SS {' '.join(command.words)}\n")[2].partition("\n.S")[0]
        for action in arguments_of(command.parser):
            assert all(option in part for option in action.option_strings)
            assert " ".join((action.help or "").split()) in part


def test_every_key() -> None:
    text = _read("qemubox.toml.5")
    for section, table in Config()._asdict().items():
        assert f".SH [{section}]" in text
        for key in table._fields:
            assert f"\n{key} = " in text


def test_every_flag_of_the_shim() -> None:
    text = _read("containerd-shim-qemubox-v1.8")
    for flag in (_TEXT_FLAGS | _BOOLEAN_FLAGS) - _UNTOLD:
        assert f"\n-{flag}" in text, flag


@pytest.mark.parametrize("name", _PAGES)
def test_no_line_of_text_is_taken_for_a_request(name: str) -> None:
    lines = _PAGES[name].splitlines()
    assert {line.split()[0] for line in lines if line.startswith((".", "'"))} <= _REQUESTS
    assert max(map(len, lines)) < 2000
    assert _PAGES[name].isascii()


@pytest.mark.parametrize("name", _PAGES)
def test_roff_takes_it(name: str) -> None:
    command = ["groff", "-man", "-Tutf8", "-ww", "-rCHECKSTYLE=3"]
    done = subprocess.run(command, input=_PAGES[name], capture_output=True, text=True, timeout=50, check=True)
    assert done.stderr == ""
    assert "EXIT STATUS" in re.sub("\x1b\\[[0-9;]*m|.\b", "", done.stdout) or name.endswith(".5")


async def test_the_command_writes_them_where_man_looks(qemubox: Command, tmp_path: Path) -> None:
    assert await qemubox("man", str(tmp_path / "share/man")) == 0
    for name, text in _PAGES.items():
        assert (tmp_path / f"share/man/man{name[-1]}" / name).read_text() == text
    (tmp_path / "file").touch()
    assert await qemubox("man", str(tmp_path / "file")) == 1
    assert "Not a directory" in qemubox.err
