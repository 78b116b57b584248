"""The place of one snapshot's writable image, and whether it is kept when its container has ended.

    DIR/KEY/                 locked (flock(2)) by the shim whose container uses it; KEY: snapshot.py
    DIR/KEY/unused.ext4      an image that no container has written to yet
    DIR/KEY/writable.ext4    one that a container may have written to
    DIR/KEY/upper.erofs      what the snapshot's upper directory had when the image was made: the topmost layer below it
    DIR/KEY/record           what has come back to that directory since (shim/changes/)
    DIR/KEY/facts.json       which snapshot it is, for `qemubox gc`; and the times of its directory when we last wrote

The image goes when what was written to it has come back to the snapshot's directory, which is the truth from then on.
Where it has not (the machine or the shim was killed, the host lost its power, the disk is full), it stays, and the next
start of the same snapshot takes it up, upon the same layers: those below are the snapshot's for ever, and what came
above them lies beside it. So what the container had on its disk is there again.

Its name alone tells what may be removed, by one rename(2): an unused image is rubbish once nobody has its directory
locked, also for who plays the journal of a killed shim (shim/reclaim.py); a used one is `qemubox gc`'s, when its
snapshot is gone.
"""

import contextlib
import ctypes
import errno
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from shim.errors import HostError, ResourceError
from shim.journal import Journal
from shim.rootfs import flock
from shim.rootfs.snapshot import Snapshot, identify

DIRECTORY: Final = "writable"
USED: Final = "writable.ext4"
UNUSED: Final = "unused.ext4"
# For how long it is tried to lock a place that somebody else has locked.
_LOCK_S: Final = 0.5
_UPPER: Final = "upper.erofs"
_RECORD: Final = "record"
FACTS: Final = "facts.json"
_libc: Final = ctypes.CDLL(None, use_errno=True)


class Place:
    """A snapshot's place, locked until `close`. Made by `claim`."""

    def __init__(self, directory: Path, lock: int, snapshot: Snapshot) -> None:
        self._directory = directory
        self._lock = lock
        self.snapshot = snapshot
        self._times = _times(snapshot.directory)
        # Whether the image is one that an earlier container had written to.
        self.taken_up = bool(snapshot.birth_ns) and (directory / USED).exists()  # without a birth it may be another's
        self._returned = False
        self._flush = False
        # Whether somebody else has changed the snapshot's directory behind the image that is taken up.
        self.changed_behind = self.taken_up and _seen(directory / FACTS) not in (None, self._times)

    @classmethod
    def claim(cls, parent: Path, upper: Path, journal: Journal) -> "Place":
        """The place below `parent` of the snapshot whose upper directory this is, made if need be. Blocks.

        Raises HostError where another machine uses it, ResourceError on a full disk; what was made is in `journal`.
        """
        snapshot = identify(upper)
        directory = parent / snapshot.key
        journal.record("writable", path=str(directory))
        with _told(directory):
            lock = _lock(directory)
            try:
                # Not before: whoever finds it in use must not take it for his own when he plays his journal.
                journal.record("writable", path=str(directory), pid=os.getpid())
                place = cls(directory, lock, snapshot)
                if not place.taken_up:
                    empty(directory)
                    place.note_now()
            except BaseException:
                os.close(lock)
                raise
            return place

    @property
    def image(self) -> Path:
        """The writable image; whoever made the place anew makes it there."""
        used = self._directory / USED
        return used if used.exists() else self._directory / UNUSED

    @property
    def upper(self) -> Path:
        """The image of what the upper directory had when the writable image was made; none where that was empty."""
        return self._directory / _UPPER

    @property
    def record(self) -> Path:
        """Where it is remembered what has come back."""
        return self._directory / _RECORD

    @property
    def outlives(self) -> bool:
        """Whether the image will be there after the container's end, as it is now."""
        return not self._returned and (self._directory / USED).exists()

    def begin(self) -> None:
        """From now on the container writes to the image: it is kept unless that comes back. Raises HostError."""
        with _told(self._directory):
            if self.snapshot.birth_ns and not (self._directory / USED).exists():
                (self._directory / UNUSED).rename(self._directory / USED)

    def returned(self, *, changed: bool) -> None:
        """All that was written has come back: the image goes at `close`. `changed`: the upper directory is another."""
        self._returned = True
        self._flush = changed

    def written(self) -> None:
        """Something was written to the image after all had come back: it is kept unless that comes back, too."""
        self._returned = False

    def note(self, times: tuple[int, int] | None) -> None:
        """Remember the upper directory's times, by which it is seen that somebody else has changed it since.

        None: they are not known, because we are about to write there. On a full disk nothing is remembered: a warning
        that is wrong is less than changes that do not come back.
        """
        facts = {
            "directory": str(self.snapshot.directory),
            "inode": self.snapshot.inode,
            "birth_ns": self.snapshot.birth_ns,
            "store": self.snapshot.store,
            "seen": times,
        }
        draft = self._directory / f"{FACTS}.new"
        with contextlib.suppress(OSError):
            draft.write_text(json.dumps(facts))
            draft.rename(self._directory / FACTS)

    def note_now(self) -> None:
        """Remember the times of this moment. Nothing, where the snapshot has been removed meanwhile."""
        with contextlib.suppress(OSError):
            self.note(_times(self.snapshot.directory))

    def close(self) -> None:
        """Let go of it, and remove it unless it is kept. Blocks: what has come back is on the disk before that.

        What could not be removed is in the journal.
        """
        if self._lock < 0:
            return
        try:
            with contextlib.suppress(OSError):
                self._remove_unless_kept()
        finally:
            os.close(self._lock)
            self._lock = -1

    def _remove_unless_kept(self) -> None:
        used = self._directory / USED
        if used.exists():
            if not self._returned:
                return
            if self._flush:
                _sync(self.snapshot.directory)
            used.rename(self._directory / UNUSED)
        empty(self._directory)
        self._directory.rmdir()


def _lock(directory: Path) -> int:
    """Make it if need be, and lock it. Raises HostError where it is in use, OSError."""
    end = time.monotonic() + _LOCK_S
    while True:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # the one before us has just removed it
        locked = flock.try_exclusive(fd)
        if locked and flock.is_at(fd, directory):
            return fd
        os.close(fd)
        if locked:
            continue
        if time.monotonic() > end:
            raise HostError(f"{directory}: in use by another machine", hint="end the container that uses this snapshot")
        time.sleep(_LOCK_S / 10)  # flock(2) has no time limit; `qemubox gc` is done with it in no time


@contextlib.contextmanager
def _told(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(f"{directory}: {error.strerror}", hint="free some of that file system") from error
        raise HostError(f"{directory}: {error.strerror}") from error


def empty(directory: Path) -> None:
    """Remove all that is in it. Raises OSError."""
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _times(directory: Path) -> tuple[int, int]:
    status = directory.stat()
    return status.st_mtime_ns, status.st_ctime_ns


def _seen(facts: Path) -> tuple[int, int] | None:
    try:
        mtime_ns, ctime_ns = json.loads(facts.read_text())["seen"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return mtime_ns, ctime_ns


def _sync(directory: Path) -> None:
    """Have all that was written to its file system on the disk (syncfs(2)). Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(fd)
