"""Waiting for what nobody tells us of: the state of other processes, of mounts, of files.

The one place of the harness that polls. What can be waited for by a file descriptor is
waited for there, never here.
"""

import time
from collections.abc import Callable
from typing import TypeVar

_INTERVAL_S = 0.02
# The deadlines of the tests are for a machine with nothing else to do. Here another worker's tests run beside them:
# whatever is waited for may take twice as long, and no test is about how long it was waited for.
PATIENCE = 2
_T = TypeVar("_T")


def eventually(look: Callable[[], _T | None], what: str, deadline_s: float) -> _T:
    """The first answer of `look` that is neither None nor False. Fails with `what` after `deadline_s`, twice."""
    end = time.monotonic() + deadline_s * PATIENCE
    while True:
        found = look()
        if found is not None and found is not False:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s * PATIENCE:g} s: {what}")
        time.sleep(_INTERVAL_S)
