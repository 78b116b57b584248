"""A runtime directory of the test's own, with machines in it, and the command that reads it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from shim.cli import main
from tests.unit.shim.cli.machines import KEY, Machine


class MakeMachine(Protocol):
    """The fixture `machines`."""

    def __call__(self, *, container: str = "box", namespace: str = "ns", key: str = KEY) -> Machine: ...


@pytest.fixture
def tmp_path(short_path: Path) -> Path:
    """Short: there are sockets below it."""
    return short_path


@pytest.fixture
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As the configuration names it."""
    config = tmp_path / "config.toml"
    config.write_text(f'[runtime]\nstate_dir = "{tmp_path}/s"\n')
    monkeypatch.setenv("QEMUBOX_CONFIG", str(config))
    (tmp_path / "s" / "vm").mkdir(parents=True)
    return tmp_path / "s"


@pytest.fixture
def machines(state_dir: Path) -> Iterator[MakeMachine]:
    """Make machines; their processes end with the test."""
    made: list[Machine] = []

    def make(*, container: str = "box", namespace: str = "ns", key: str = KEY) -> Machine:
        made.append(Machine(state_dir, container=container, namespace=namespace, key=key))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def machine(machines: MakeMachine) -> Machine:
    """One, of the container `box` in the namespace `ns`, that has not started."""
    return machines()


class Command:
    """`qemubox`, run in a thread, as its loop is its own; what it printed is in `out` and `err`."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    async def __call__(self, *words: str) -> int:
        async with asyncio.timeout(30):
            status = await asyncio.to_thread(main, words)
        self.out, self.err = self._capsys.readouterr()
        return status


@pytest.fixture
def qemubox(capsys: pytest.CaptureFixture[str]) -> Command:
    """The command; an answer is its exit status."""
    return Command(capsys)
