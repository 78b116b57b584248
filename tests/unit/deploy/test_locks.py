"""The locked dependencies: each pinned, each with its hashes, from wherever the user's tools get them."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LOCKS = ["requirements.lock", "requirements-otel.lock", "requirements-dev.lock", "requirements-build.lock"]


def _pins(name: str) -> dict[str, tuple[str, int]]:
    """Version and number of hashes, by project name."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        pin = re.match(r"([A-Za-z0-9._-]+)==(\S+)", line)
        assert pin, f"{name}: not a pin: {line}"
        found[pin[1].lower()] = (pin[2], line.count("--hash=sha256:"))
    return found


def _normal(requirement: str) -> str:
    """The project's name in a requirement, as locks spell it (PEP 503)."""
    return re.sub(r"[._-]+", "-", re.split(r"[<>=~! ;]", requirement)[0]).lower()


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_has_hashes(name: str) -> None:
    assert min(hashes for _version, hashes in _pins(name).values()) >= 1


@pytest.mark.parametrize("name", LOCKS)
def test_no_place_to_fetch_from_is_named(name: str) -> None:
    assert "://" not in (ROOT / name).read_text()


def test_the_locks_hold_what_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = {_normal(requirement) for requirement in project["project"]["dependencies"]}
    assert wanted <= _pins("requirements.lock").keys()
    extra = {_normal(requirement) for requirement in project["project"]["optional-dependencies"]["otel"]}
    assert wanted | extra <= _pins("requirements-otel.lock").keys()
    assert not extra & _pins("requirements.lock").keys()
    groups = project["dependency-groups"]
    assert wanted | {_normal(requirement) for requirement in groups["dev"]} <= _pins("requirements-dev.lock").keys()
    assert {_normal(requirement) for requirement in groups["build"]} <= _pins("requirements-build.lock").keys()


def test_the_tests_run_with_the_versions_that_are_installed() -> None:
    tested = _pins("requirements-dev.lock")
    for lock in ("requirements.lock", "requirements-otel.lock"):
        installed = _pins(lock)
        assert installed == {name: tested[name] for name in installed}
