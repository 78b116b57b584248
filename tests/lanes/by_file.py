"""A plugin of pytest's (`-p tests.lanes.by_file`): at the end, how long the tests of each file took, the longest first.

In workers' seconds, with what was set up and taken down for them: what a lane takes is their sum by the workers.
"""

from collections import defaultdict
from typing import Final

import pytest

_SHOWN: Final = 25


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say so."""
    reports = [each for several in terminalreporter.stats.values() for each in several]
    seconds = by_file([each for each in reports if isinstance(each, pytest.TestReport)])
    terminalreporter.section(f"seconds by file: {sum(seconds.values()):.0f}")
    for path, taken in sorted(seconds.items(), key=lambda each: -each[1])[:_SHOWN]:
        terminalreporter.write_line(f"{taken:7.1f} {path}")


def by_file(reports: list[pytest.TestReport]) -> dict[str, float]:
    """The sum of each file's, by its path."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for report in reports:
        seconds[report.nodeid.partition("::")[0]] += report.duration
    return dict(seconds)
