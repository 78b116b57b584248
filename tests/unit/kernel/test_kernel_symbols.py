"""kernel/symbols.py: a stripped kernel's functions by their names again."""

import subprocess
from pathlib import Path

import pytest

from kernel.symbols import main, options

_MAP = """\
ffffffff80000000 D before
ffffffff81000000 T _text
ffffffff81000010 t local.cold
ffffffff81000010 T schedule
ffffffff82000000 d data
"""


def test_a_function_s_place_is_told_from_the_beginning_of_text() -> None:
    assert list(options(_MAP)) == [
        "--add-symbol _text=.text:0x0,global,function",
        "--add-symbol local.cold=.text:0x10,global,function",
        "--add-symbol schedule=.text:0x10,global,function",
    ]


@pytest.mark.parametrize(("text", "said"), [("", "not the lines"), ("a b\n", "not the lines"), ("1 D x\n", "no _text")])
def test_what_is_no_system_map(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        list(options(text))


def test_a_stripped_program_gets_them(tmp_path: Path) -> None:
    """By the binutils that a kernel is built with."""
    (tmp_path / "x.s").write_text(".globl _start\n_start: nop\nschedule: ret\n")
    for command in (
        ("as", "-o", "x.o", "x.s"),
        ("ld", "-Ttext=0xffffffff81000000", "-o", "x", "x.o"),
        ("strip", "-s", "x"),
    ):
        subprocess.run(command, check=True, cwd=tmp_path, timeout=50)
    (tmp_path / "map").write_text("ffffffff81000000 T _text\nffffffff81000001 T schedule\n")
    assert main([str(tmp_path / name) for name in ("x", "map", "out")]) == 0
    done = subprocess.run(("nm", "out"), check=True, cwd=tmp_path, capture_output=True, text=True, timeout=50)
    assert done.stdout.splitlines() == ["ffffffff81000000 T _text", "ffffffff81000001 T schedule"]


def test_what_cannot_be_done_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["only-one"]) == 2
    assert main([str(tmp_path / name) for name in ("x", "map", "out")]) == 1
    assert "map" in capsys.readouterr().err
    (tmp_path / "map").write_text(_MAP)
    assert main([str(tmp_path / name) for name in ("x", "map", "out")]) == 1
    assert "objcopy" in capsys.readouterr().err
