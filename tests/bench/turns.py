"""Who is measured when: one run of each in turn, so that whatever else the machine does hits all alike."""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

_T = TypeVar("_T")


def in_turn(names: Sequence[str], rounds: int) -> Iterator[tuple[int, str]]:
    """(round, name) for every run: round 0 is for warming up. Each round begins with the next of the names."""
    for number in range(rounds + 1):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            yield number, name


def measure(names: Sequence[str], rounds: int, what: str, run: Callable[[str, int], _T]) -> dict[str, list[_T]]:
    """Run each of `names` in turn, `rounds` times and once before; what `run` answered, the first not counted."""
    found: dict[str, list[_T]] = {name: [] for name in names}
    if not names:
        return found
    for number, name in in_turn(names, rounds):
        progress(f"{what}: {number} of {rounds}")
        answer = run(name, number)
        if number:
            found[name].append(answer)
    progress("")
    return found


def progress(words: str) -> None:
    """What is being done, for whoever watches: one line of a terminal, over and over; empty to end it."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{words}")
