"""Every link within the documentation leads somewhere, and what the security page rests on is there."""

import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[3]
_PAGES = sorted([_ROOT / "README.md", *(_ROOT / "docs").rglob("*.md")])


def _anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings: small letters, no punctuation, a dash for each space."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_ROOT)))
def test_links_within_the_repository(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{target} of {page.name} leads nowhere"
        assert not anchor or anchor in _anchors(found), f"{target} of {page.name}: there is no such heading"


def test_what_the_security_page_names_is_there() -> None:
    text = (_ROOT / "docs" / "security.md").read_text()
    tests = {path.name for path in (_ROOT / "tests").rglob("test_*.py")}
    named = re.findall(r"(?<![\w/])(?:shim|vminitd|kernel|initrd|archive|cni|deploy|tests)/[\w./-]+\b", text)
    assert named
    assert [path for path in named if not (_ROOT / path).exists()] == []
    assert set(re.findall(r"\btest_\w+\.py\b", text)) - tests == set()
