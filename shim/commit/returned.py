"""Whether what a container of ours has written is on the host, where a commit looks for it.

It comes back when the container is paused and at its end. It has not after a loss of machine, shim or host, or on a
full disk: then the writable image has it, and the next start brings it back. And not where the configuration says so.
"""

import json
from pathlib import Path

from api import containerd_pb2 as api
from shim.changes import pending
from shim.commit.source import Comparison, Upper
from shim.config import Config
from shim.errors import StateError, UnsupportedError
from shim.rootfs import place as places
from shim.rootfs.snapshot import identify
from shim.task.write_back import is_wanted


def check_wanted(container: api.Container, config: Config) -> None:
    """Raise UnsupportedError if it does not come back at all."""
    document = json.loads(container.spec.value or b"{}")
    if not is_wanted(config.rootfs.write_back, document):
        raise UnsupportedError(
            f"container {container.id}: what it writes does not come back to the host"
            f" (rootfs.write_back is {config.rootfs.write_back})",
            hint="set it to always, and start the container again",
        )


def check_ended(container: api.Container, place: Upper | Comparison, config: Config, *, has_task: bool) -> None:
    """Raise StateError if it has not come back from a container that runs no more. Blocks a moment."""
    if isinstance(place, Upper) and place.image is not None:
        image = place.image
        behind = pending.is_marked(image)
    else:
        image = Path(config.runtime.data_dir, places.DIRECTORY, identify(place.directory).key, places.USED)
        # Without a task nobody uses it, so it was kept.
        behind = pending.is_marked(image) or (not has_task and image.exists())
    if behind:
        raise StateError(
            f"container {container.id}: what it wrote last has not come back to its snapshot, and is in {image}",
            hint="start it again: then commit it while it runs, or after its end",
        )
