"""What `qemubox check` says: lines, each of one thing that was looked at. Pure."""

import enum
from dataclasses import dataclass, field


class Level(enum.StrEnum):
    """How it stands: a warning is something that works less well, or may not be wanted; a failure, what cannot work."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Line:
    """`what` was looked at, `found` is how it is; `mend`, where something is amiss, a command or a sentence."""

    level: Level
    area: str
    what: str
    found: str
    mend: str = ""

    def __str__(self) -> str:
        """As people see it: the mending on a line of its own."""
        first = f"{self.level:<8} {self.area:<13} {self.what}: {self.found}"
        return f"{first}\n{'':<23}-> {self.mend}" if self.mend else first


@dataclass(slots=True)
class Report:
    """Where an area writes its lines: those before an unexpected error are kept."""

    area: str
    lines: list[Line] = field(default_factory=list)

    def ok(self, what: str, found: str) -> None:
        """All is well."""
        self._add(Level.OK, what, found, "")

    def warning(self, what: str, found: str, mend: str) -> None:
        """Containers run, but not as well as they could, or not all of them."""
        self._add(Level.WARNING, what, found, mend)

    def failure(self, what: str, found: str, mend: str) -> None:
        """No container runs, or none with what this is about."""
        self._add(Level.FAILURE, what, found, mend)

    def _add(self, level: Level, what: str, found: str, mend: str) -> None:
        self.lines.append(Line(level, self.area, _one_line(what), _one_line(found), _one_line(mend)))


def worst(lines: list[Line]) -> Level:
    """The level of all of them together."""
    levels = {line.level for line in lines}
    return next((level for level in (Level.FAILURE, Level.WARNING) if level in levels), Level.OK)


def _one_line(words: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in words).split())
