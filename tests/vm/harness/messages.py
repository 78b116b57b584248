"""What a user should read when something cannot be done."""

import re

from harness.containerd import Result


def assert_one_clear_line(result: Result, *patterns: str) -> None:
    """One line at the terminal, in which each of `patterns` is found; no traceback; a status that says failure."""
    assert result.code != 0
    # ctr's own log lines (time="..." level=...) are not ours.
    message = "\n".join(line for line in result.error.splitlines() if not line.startswith("time="))
    assert message.startswith("ctr: "), message
    assert len(message.splitlines()) == 1, message
    assert "Traceback" not in message
    for pattern in patterns:
        assert re.search(pattern, message), f"{pattern!r} is not in: {message}"
