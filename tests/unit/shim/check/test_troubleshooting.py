"""docs/troubleshooting.md: each message that it quotes is one that the code has, and each area of a check is in it.

A message is quoted on a line of its own, `> `, in backquotes, with … for what is different each time.
"""

import ast
import re
from pathlib import Path

import pytest

from shim.check import configuration, runner
from shim.check.command import FORMAT

_ROOT = Path(__file__).parents[4]
_PAGE = _ROOT / "docs" / "troubleshooting.md"
_PYTHON = ("cni", "shim", "vminitd")
_SHELL = ("deploy", "install.sh")
_QUOTED = re.compile(r"^ *> `(.+)`$", re.MULTILINE)


def _texts_of(path: Path) -> list[str]:
    """Every text of a Python file, with … in the place of each value."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return found


def _texts() -> list[str]:
    found = [
        text for package in _PYTHON for path in sorted((_ROOT / package).rglob("*.py")) for text in _texts_of(path)
    ]
    for name in _SHELL:
        place = _ROOT / name
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file() and path.suffix in (".sh", "") and not path.name.startswith("."):
                found += path.read_text(errors="replace").splitlines()
    return found


def _has(text: str, pieces: list[str]) -> bool:
    """Whether the pieces are in the text, one behind the other."""
    at = 0
    for piece in pieces:
        at = text.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return True


_MESSAGES = _QUOTED.findall(_PAGE.read_text())
_ALL = _texts()


def test_messages_are_quoted() -> None:
    assert len(_MESSAGES) > 40
    assert len(set(_MESSAGES)) == len(_MESSAGES)


@pytest.mark.parametrize("message", _MESSAGES)
def test_each_message_is_the_code_s(message: str) -> None:
    pieces = [piece for piece in message.split("…") if piece.strip(" :=()'")]
    assert pieces, "only values"
    assert any(_has(text, pieces) for text in _ALL), f"no text of the code has {pieces}"


@pytest.mark.parametrize(
    ("text", "message", "found"),
    [("a b c d", "a …c", True), ("a b c d", "c … a", False), ("a b", "a b c", False), ("x", "…", False)],
)
def test_the_comparison(text: str, message: str, found: bool) -> None:
    pieces = [piece for piece in message.split("…") if piece.strip()]
    assert bool(pieces and _has(text, pieces)) is found


@pytest.mark.parametrize("area", [configuration.AREA, runner.RIGHTS.name, *(area.name for area in runner.AREAS)])
def test_each_area_is_in_it(area: str) -> None:
    assert f"| `{area}` |" in _PAGE.read_text()


def test_the_document_is_that_of_the_command() -> None:
    assert f'"format": {FORMAT}' in _PAGE.read_text()
