"""docs/configuration.md has every key of the configuration, in its section, with its bounds, and no other key."""

import re
from pathlib import Path
from typing import get_args

import pytest

from shim.config import Between, Config

_PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def _sections() -> dict[str, dict[str, str]]:
    """By section: the second cell of each row, by each key that the first one names."""
    found: dict[str, dict[str, str]] = {}
    for heading, body in re.findall(
        r"^## `\[(\w+)\]`.*?\n(.*?)(?=^## |\Z)", _PAGE.read_text(), re.MULTILINE | re.DOTALL
    ):
        found[heading] = {
            key: default
            for names, default in re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", body, re.MULTILINE)
            for key in re.findall(r"`(\w+)`", names)
        }
    return found


def test_every_key_is_in_its_section_and_no_other() -> None:
    there = {section: set(keys) for section, keys in _sections().items()}
    assert there == {name: set(table._fields) for name, table in Config()._asdict().items()}


@pytest.mark.parametrize("section", Config._fields)
def test_numbers_stand_with_their_default_and_their_bounds(section: str) -> None:
    table, page = getattr(Config(), section), _sections()[section]
    for key, kind in type(table).__annotations__.items():
        for rule in get_args(kind):
            if isinstance(rule, Between):
                assert page[key] == f"{getattr(table, key)} ({rule.low}–{rule.high})"


@pytest.mark.parametrize("section", Config._fields)
def test_a_default_in_quotes_is_the_default(section: str) -> None:
    table, page = getattr(Config(), section), _sections()[section]
    for key, default in page.items():
        if quoted := re.fullmatch(r'`"([^"]*)"`', default):
            assert getattr(table, key) == quoted[1]
