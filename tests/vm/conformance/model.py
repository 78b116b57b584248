"""What the shim may answer, in whatever order it is called: a model of one container, without any I/O.

A process may end by itself, or a moment after a signal, and nobody asks when. So the model is a set of worlds, all that
may be the case: a call is made in each of them, and what was answered leaves those in which it may be.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

# What a program does that is run: until it is killed, at once, or not at all.
SLEEPS, ENDS, MISSING = "sleeps", "ends", "missing"
# States of a process. A container is absent before Create and after Delete, an exec likewise.
ABSENT, CREATED, RUNNING, PAUSED, STOPPED = "absent", "created", "running", "paused", "stopped"

NOT_FOUND, REFUSED, TAKEN = "NOT_FOUND", "FAILED_PRECONDITION", "ALREADY_EXISTS"
# What a call may come to that meets a process on its way out.
_LATE: Final = (REFUSED, NOT_FOUND, "INTERNAL", "UNAVAILABLE")


@dataclass(frozen=True)
class Process:
    """One process. `doomed`: it ends any time now."""

    state: str
    kind: str = SLEEPS
    doomed: bool = False


@dataclass(frozen=True)
class World:
    """One of the things that may be the case: the first process, and the others by id."""

    init: Process
    execs: tuple[tuple[str, Process], ...] = ()

    def exec(self, exec_id: str) -> Process:
        """That process, absent where there is none."""
        return dict(self.execs).get(exec_id, Process(ABSENT))

    def with_exec(self, exec_id: str, process: Process) -> "World":
        """With that one in that state."""
        others = {**dict(self.execs), exec_id: process}
        return replace(self, execs=tuple(sorted((k, v) for k, v in others.items() if v.state != ABSENT)))

    def each_exec(self, change: Callable[[Process], Process]) -> "World":
        """With all of them changed."""
        return replace(self, execs=tuple((exec_id, change(process)) for exec_id, process in self.execs))


# What was answered, in which world one is then.
Outcome = tuple[str, World]
Move = Callable[[World], Iterable[Outcome]]


def doomed(process: Process) -> Process:
    """On its way out, if it runs."""
    return replace(process, doomed=True) if process.state in (CREATED, RUNNING, PAUSED) else process


def _ended(process: Process) -> Process:
    return replace(process, state=STOPPED, doomed=False) if process.state == RUNNING else process


def _silent(world: World) -> Iterable[World]:
    """What may happen without a call: the end of what is doomed. The first process ends after all others."""
    for exec_id, process in world.execs:
        if process.state == RUNNING and process.doomed:
            yield world.with_exec(exec_id, _ended(process))
    if world.init.doomed:
        yield replace(world.each_exec(_ended), init=replace(world.init, state=STOPPED, doomed=False))


def settle(worlds: Iterable[World]) -> frozenset[World]:
    """Those, and all that they may have become."""
    found: set[World] = set()
    new = [*worlds]
    while new:
        world = new.pop()
        if world not in found:
            found.add(world)
            new += _silent(world)
    return frozenset(found)


class Model:
    """All worlds that may be."""

    def __init__(self) -> None:
        self.worlds = frozenset({World(Process(ABSENT))})
        self.calls = 0

    def possible(self, *moves: Move) -> dict[tuple[str, ...], frozenset[World]]:
        """What may be answered to calls made one after the other, and what is the case then."""
        found: dict[tuple[str, ...], frozenset[World]] = {(): self.worlds}
        for move in moves:
            found = _made(found, move)
        return found

    def may_answer(self, move: Move, answer: str) -> bool:
        """Whether that is an answer to it, as far as is known."""
        return (answer,) in self.possible(move)

    def observe(self, move: Move, answer: str) -> None:
        """A call was answered so. Raises AssertionError where that cannot be."""
        possible = self.possible(move)
        allowed = sorted(words for (words,) in possible)
        assert (answer,) in possible, f"{answer!r}, and not one of {allowed} in {sorted(map(str, self.worlds))}"
        self.worlds = possible[answer,]
        self.calls += 1

    def observe_both(self, moves: tuple[Move, Move], answers: tuple[str, str]) -> None:
        """Two calls made at once were answered so: as if one had come after the other. Raises AssertionError."""
        first, second = self.possible(*moves), self.possible(*reversed(moves))
        worlds = first.get(answers, frozenset()) | second.get((answers[1], answers[0]), frozenset())
        assert worlds, f"{answers}, and not {sorted(first)} nor the other way round {sorted(second)}"
        self.worlds = worlds
        self.calls += 2


def _made(found: dict[tuple[str, ...], frozenset[World]], move: Move) -> dict[tuple[str, ...], frozenset[World]]:
    after: dict[tuple[str, ...], set[World]] = {}
    for answers, worlds in found.items():
        for world in worlds:
            for answer, then in move(world):
                after.setdefault((*answers, answer), set()).add(then)
    return {answers: settle(worlds) for answers, worlds in after.items()}


def late(world: World) -> Iterable[Outcome]:
    """Whatever a call may say that meets an end; nothing comes of it."""
    return [(code, world) for code in _LATE]
