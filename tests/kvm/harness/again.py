"""Which tests are done once more after some have failed: whole suites, for a step needs those before it. Pure."""

from collections.abc import Iterable


def suite_of(test: str) -> str:
    """The suite of a step, or the test itself where it is in none, by pytest's node ids."""
    above, _, _ = test.rpartition("::")
    return above if "::" in above else test


def is_wanted(test: str, failed: Iterable[str]) -> bool:
    """Whether a test is of a suite in which something failed, or of a file of which nothing could be collected."""
    return any(each in (suite_of(test), test.partition("::")[0]) for each in map(suite_of, failed))
