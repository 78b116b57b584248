"""What the tests of a check share: a host made of files and scripts, and what an area says of it."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import pytest

from shim.check.host import Host
from shim.check.line import Line, Report
from shim.config import Config


class Say(Protocol):
    """The fixture `say`."""

    async def __call__(self, look: Callable[[Host, Report], Awaitable[None]], /) -> "Said": ...


class Said(list[Line]):
    """The lines of an area."""

    def of(self, what: str) -> Line:
        """The one line whose `what` has these words."""
        (found,) = (line for line in self if what in line.what)
        return found

    def told(self, what: str) -> tuple[str, str, str]:
        """Level, finding, mending of that line."""
        line = self.of(what)
        return line.level, line.found, line.mend


class FakeHost:
    """A root directory, and a directory of programs that is all there is of PATH."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        self.bin = directory / "bin"
        for path in (self.root, self.bin):
            path.mkdir()
        self.host = Host(Config(), root=self.root, environ={"PATH": str(self.bin)})

    def path_of(self, name: str) -> Path:
        """Where a file below the root would be, with the directories above it."""
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def put(self, name: str, text: str = "") -> Path:
        """A file below the root."""
        path = self.path_of(name)
        path.write_text(text)
        return path

    def program(self, name: str, script: str, directory: Path | None = None) -> Path:
        """A shell script in PATH."""
        path = (directory or self.bin) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def configure(self, section: str, **values: object) -> None:
        """Set keys of the configuration, unexamined."""
        table = getattr(self.host.config, section)._replace(**values)
        self.host.config = self.host.config._replace(**{section: table})


@pytest.fixture
def tmp_path(short_path: Path) -> Path:
    """Short: there are sockets below it."""
    return short_path


@pytest.fixture
def fake(tmp_path: Path) -> FakeHost:
    """A host without anything."""
    return FakeHost(tmp_path)


@pytest.fixture
def say(fake: FakeHost) -> Say:
    """What an area says of the fake host."""

    async def look(area: Callable[[Host, Report], Awaitable[None]]) -> Said:
        report = Report("test")
        await area(fake.host, report)
        return Said(report.lines)

    return look
