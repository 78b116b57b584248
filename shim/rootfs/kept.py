"""Writable images that were kept (place.py), and what becomes of them when nobody takes them up any more.

`qemubox gc` looks at all; each container that ends removes those whose snapshot has gone, since nobody calls gc just
because a container was removed after a crash.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shim.errors import HostError
from shim.rootfs import flock
from shim.rootfs.place import FACTS, USED, empty
from shim.rootfs.snapshot import Snapshot, is_gone


@dataclass(frozen=True, slots=True)
class Left:
    """A place that nobody uses; `why` it is kept, or what failed."""

    directory: Path
    outcome: Literal["gone", "kept", "failed"]
    why: str = ""


def sweep(parent: Path, *, dry_run: bool) -> Iterator[Left]:
    """Remove the places of snapshots that are gone, and unused images; with `dry_run` only look. Blocks.

    Those in use are passed over.
    """
    try:
        names = sorted(os.listdir(parent))
    except FileNotFoundError:
        return
    for name in names:
        try:
            found = _sweep_one(parent / name, dry_run=dry_run)
        except (OSError, HostError) as error:
            found = Left(parent / name, "failed", str(error))
        if found is not None:
            yield found


def remove_gone(parent: Path) -> None:
    """Remove the images of snapshots that are gone; whatever is in the way of that is gc's. Blocks.

    Nothing else is locked, not even for a moment.
    """
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = os.listdir(parent)
    for name in names:
        directory = parent / name
        with contextlib.suppress(OSError, HostError):
            if (directory / USED).exists() and not _why_kept(directory / FACTS):
                _sweep_one(directory, dry_run=False)


def _sweep_one(directory: Path, *, dry_run: bool) -> Left | None:
    try:
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        if not flock.try_exclusive(lock) or not flock.is_at(lock, directory) or _has_machine(directory / USED):
            return None
        if (directory / USED).exists() and (why := _why_kept(directory / FACTS)):
            return Left(directory, "kept", why)
        if not dry_run:
            empty(directory)
            directory.rmdir()
        return Left(directory, "gone")
    finally:
        os.close(lock)


def _why_kept(facts: Path) -> str:
    """Why a used image stays; empty where its snapshot is gone."""
    try:
        document = json.loads(facts.read_text())
        snapshot = Snapshot(
            Path(document["directory"]), int(document["inode"]), int(document["birth_ns"]), str(document["store"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return f"whose it is cannot be read: {facts}"
    match is_gone(snapshot):
        case True:
            return ""
        case False:
            return f"what was written to it has not come back to {snapshot.directory}, whose next start takes it up"
        case None:
            return f"whether its snapshot has been removed cannot be told: {snapshot.directory}"


def _has_machine(image: Path) -> bool:
    """Whether a machine has the image open, whose shim was killed a moment ago."""
    try:
        fd = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not flock.try_exclusive(fd)
    finally:
        os.close(fd)
