"""deploy/config.toml says what shim/config.py says: every key, its default, its comment, what is allowed.

Run as a program, this writes the file anew.
"""

import ast
import json
import re
from pathlib import Path
from typing import Literal, get_args, get_origin

from shim import config
from shim.cli.man import key_comments
from shim.config import Between, Config, Names, parse

_ROOT = Path(__file__).parents[3]
_FILE = _ROOT / "deploy" / "config.toml"

_HEAD = """\
# The configuration of qemubox: /etc/qemubox/config.toml
#
# Every key stands here with its default. To change one, take the "# " from its line and edit it.
# With an unknown key or a value that is not allowed no container starts; the error names it.
"""


def render() -> str:
    """The file as it should be."""
    parts = [_HEAD]
    for section, table in Config()._asdict().items():
        parts.append(f"\n# {(type(table).__doc__ or '').strip()}\n[{section}]\n")
        comments = key_comments(type(table))
        for key, value in table._asdict().items():
            if comments[key]:
                parts.append("\n" + "".join(f"# {line}\n" for line in comments[key]))
            parts.append(f"# {key} = {json.dumps(value)}{_allowed(type(table).__annotations__[key])}\n")
    return "".join(parts)


def _allowed(kind: object) -> str:
    if get_origin(kind) is Literal:
        return f"    # {', '.join(get_args(kind))}"
    for rule in get_args(kind):
        if isinstance(rule, Between):
            return f"    # {rule.low} to {rule.high}"
        if isinstance(rule, Names):
            return f"    # {', '.join(rule.known)}"
    return ""


def test_the_file_has_every_key_with_its_default_and_comment() -> None:
    assert _FILE.read_text() == render(), "run: python tests/unit/shim/test_config_file.py"


def test_an_untouched_file_is_all_defaults() -> None:
    assert parse(_FILE.read_text()) == Config()


def test_a_file_with_every_key_uncommented_is_all_defaults() -> None:
    text = re.sub(r"^# (\w+ = )", r"\1", _FILE.read_text(), flags=re.MULTILINE)
    assert text.count("\n# ") < _FILE.read_text().count("\n# ")
    assert parse(text) == Config()


def test_every_key_has_a_comment() -> None:
    for table in Config():
        commented = False
        for key, lines in key_comments(type(table)).items():
            commented = commented or bool(lines)  # a key without one stands under the comment of the key above
            assert commented, key


def test_every_key_is_used() -> None:
    """A key that nothing reads would be a promise that nothing keeps."""
    read = set()
    for path in (_ROOT / "shim").rglob("*.py"):
        if path != Path(config.__file__):
            read |= {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    assert {key for table in Config() for key in table._fields} - read == set()


if __name__ == "__main__":
    _FILE.write_text(render())
