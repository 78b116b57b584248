"""Whether the container of a bundle will want volumes, before Create says so.

The machine of such a container needs memory that another process can map, and is started before Create comes
(shim/prelaunch.py). A wrong guess costs the machine that was started, and is no error.
"""

import threading
from pathlib import Path

from shim import deadlines, spec
from shim.errors import QemuboxError
from shim.mounts import classify


def expected(bundle: Path) -> bool:
    """What config.json of the bundle means by now. Never an error: Create tells of what is wrong."""
    try:
        data = (bundle / "config.json").read_bytes()
    except OSError:
        return False
    if b"bind" not in data:  # no bind mount in any wording: nothing more to be read, as most often with ctr
        return False
    # In a thread, since nobody can call the shim meanwhile, and a dead server's file system never answers.
    found: list[bool] = []
    looking = threading.Thread(target=lambda: found.append(_has_volumes(bundle)), name="sources", daemon=True)
    looking.start()
    looking.join(deadlines.SOURCES_GUESS_S)
    return found == [True]


def _has_volumes(bundle: Path) -> bool:
    try:
        return bool(classify(spec.objects(spec.load(bundle), "mounts"), bundle).volumes)
    except QemuboxError:
        return False
