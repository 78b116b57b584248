"""Everybody has as many turns as the others, and nobody is always the first."""

from collections import Counter

from tests.bench.turns import in_turn, measure


def test_each_round_has_each_once_and_begins_with_the_next() -> None:
    turns = [*in_turn(["a", "b", "c"], 3)]
    assert [name for number, name in turns if number == 0] == ["a", "b", "c"]
    assert [name for number, name in turns if number == 1] == ["b", "c", "a"]
    assert [name for number, name in turns if number == 3] == ["a", "b", "c"]
    assert Counter(turns).most_common(1)[0][1] == 1
    assert len(turns) == 12


def test_the_first_of_each_is_not_counted() -> None:
    calls: list[tuple[str, int]] = []

    def run(name: str, number: int) -> int:
        calls.append((name, number))
        return number

    assert measure(["a", "b"], 2, "what", run) == {"a": [1, 2], "b": [1, 2]}
    assert len(calls) == 6


def test_nobody_has_no_turns() -> None:
    def run(name: str, number: int) -> int:
        raise AssertionError(f"{name} ran in round {number}")

    assert measure([], 20, "what", run) == {}
