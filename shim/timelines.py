"""Where the start time of each machine went: one JSON line per container, kept for the last few hundred.

The file is `timeline.jsonl` in the runtime directory, for `install.sh --demo`, for
`task bench`, and for whoever asks why a start was slow. When it reaches LIMIT bytes it
takes the place of `timeline.jsonl.1`. Times are milliseconds: those of `phases` since
the shim ran, those of `guest` since the guest's kernel started. `template` tells
whether it is a clone: then what its guest did before "waiting" was done in the template.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

FILE_NAME: Final = "timeline.jsonl"
LIMIT: Final = 256 << 10


def append(
    directory: Path,
    *,
    namespace: str,
    container_id: str,
    phases: Mapping[str, float],
    guest: Mapping[str, float],
    template: bool,
) -> None:
    """Add one line. Raises OSError."""
    path = directory / FILE_NAME
    record = {
        "namespace": namespace,
        "id": container_id,
        "template": template,
        "phases": dict(phases),
        "guest": dict(guest),
    }
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # One write: lines of shims that start at once do not mix (O_APPEND, open(2)).
        os.write(fd, json.dumps(record).encode() + b"\n")
        full = os.fstat(fd).st_size > LIMIT
    finally:
        os.close(fd)
    if full:
        with contextlib.suppress(FileNotFoundError):  # another shim was quicker
            path.replace(path.with_name(f"{FILE_NAME}.1"))
