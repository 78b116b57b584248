"""What a guest says, made fit for the host: bounded, printable, and within what it can mean.

A guest may be whatever its container has made of it. Its answers are of the right type when they get here (ttrpc has
decoded them, shim/guest.py bounds their size), and of nothing else can one be sure. Pure.
"""

import re
from collections.abc import Iterable
from typing import Final, Protocol

from google.protobuf.timestamp_pb2 import Timestamp

# Characters of an error message, of a version, of a milestone's name.
TEXT_LIMIT: Final = 2048
NAME_LIMIT: Final = 64
# A boot has a dozen milestones.
MILESTONE_LIMIT: Final = 64
# The greatest status that a process can end with (wait(2)). Clients hand it to exit(3), which keeps its low 8 bits:
# 256 would be a success.
STATUS_LIMIT: Final = 255

_SECOND_NS: Final = 1_000_000_000
# What could end a key of logfmt, or begin another.
_NO_KEY: Final = re.compile(r"[^A-Za-z0-9_.-]")


class Milestone(Protocol):
    """guest_pb2.Milestone."""

    name: str
    boottime_ns: int


def plain(text: str, limit: int = TEXT_LIMIT) -> str:
    """At most `limit` characters of `text`, all printable: each that is not is a space."""
    shown = "".join(character if character.isprintable() else " " for character in text[:limit])
    return shown if len(text) <= limit else f"{shown}... ({len(text)} characters)"


def status(number: int) -> int:
    """An exit status as clients take it; one that no process can have is STATUS_LIMIT, a failure."""
    return min(number, STATUS_LIMIT)


def nanoseconds(at: Timestamp) -> int:
    """Nanoseconds since 1970. Never raises, as Timestamp's own method does for what is no time of its calendar."""
    return at.seconds * _SECOND_NS + at.nanos


def milestones(said: Iterable[Milestone]) -> list[tuple[str, int]]:
    """Name and instant of each, of the first MILESTONE_LIMIT. Names become keys of a log line: see _NO_KEY."""
    return [
        (_NO_KEY.sub("_", item.name[:NAME_LIMIT]), item.boottime_ns)
        for _, item in zip(range(MILESTONE_LIMIT), said, strict=False)
    ]
