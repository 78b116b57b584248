"""How long things took, for the documentation: build/kvm/times.json.

    {"bookworm-host": {"install": 61.2, ...}, ...}, in seconds, under TCG on the machine that ran the tests.

Each run replaces what it measures anew and leaves the rest, under a lock, since the suites may run at once.
"""

import fcntl
import json
from pathlib import Path
from typing import Final

PATH: Final = Path(__file__).parents[3] / "build" / "kvm" / "times.json"


class Times:
    """The times of one suite."""

    def __init__(self, suite: str, path: Path = PATH) -> None:
        self._suite = suite
        self._path = path

    def record(self, name: str, seconds: float) -> None:
        """Remember one time, to a tenth of a second."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = json.loads(self._path.read_text()) if self._path.exists() else {}
            known.setdefault(self._suite, {})[name] = round(seconds, 1)
            draft = self._path.with_suffix(".new")
            draft.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
            draft.rename(self._path)
