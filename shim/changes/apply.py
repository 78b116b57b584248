"""Carries out what a comparison has found, in the directory on the host. Blocks: it is run in a thread.

What is written appears under another name and is renamed when it is complete. Times of directories are set when all
that is in them has been done.
"""

import contextlib
import itertools
import os
import stat
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from shim.changes import inodes
from shim.changes.beneath import Names, Tree
from shim.changes.compare import Comparison, Step, What
from shim.changes.listing import Item
from shim.changes.record import Known, Record
from shim.changes.target import Kind, Target

# So many steps are written down before they are taken. What was removed may be all that a container had.
_AT_ONCE: Final = 1024
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class NotTold(Exception):
    """The guest has taken something as known that is not: all must be listed."""


@dataclass(slots=True)
class _Directory:
    """One that the listing is in."""

    item: Item
    # Its time has to be set once all in it is done.
    touched: bool
    # Nothing is in it but what is listed.
    exact: bool
    # Of what was in it before, what comes after the last item, the last name first. Nothing unless it is exact.
    before: list[bytes] = field(default_factory=list)
    # It is so on the host; None before anybody has looked.
    opaque: bool | None = None


class Applying:
    """One run: `begin`, a `page` after the other, `end` with the last one, and `close`. Counts what it does.

    All but `close` raise OSError; GuestError for data that are not there; NotTold; and CalledOff once `stop` is set.
    """

    def __init__(self, target: Target, stop: threading.Event, *, trusted: bool = True) -> None:
        self._target = target
        # Whether what is remembered as applied is there.
        self._trusted = trusted
        self._copy = inodes.Copy(target.image, stop)
        self._open = contextlib.ExitStack()
        self._at: list[_Directory] = []
        self.applied = 0
        self.removed = 0

    def begin(self) -> None:
        """Open the directory, and the record of what was applied to it."""
        root = os.open(self._target.directory, _DIRECTORY)
        self._tree = Tree(root)
        self._open.callback(self._tree.close)
        self._record = self._open.enter_context(
            Record(self._target.record, os.fstat(root).st_ino, trusted=self._trusted)
        )
        self._comparison = Comparison(self._record.known)
        # Nothing is known of what is in the directory, but that nothing else should be.
        self._all_exact = self._target.mirror and (self._record.interrupted or not self._record.found)

    @property
    def data_bytes(self) -> int:
        """What was copied."""
        return self._copy.data_bytes

    def close(self) -> None:
        """Close all that is open. A second call does nothing."""
        self._open.close()

    def page(self, items: list[Item]) -> None:
        """Do what the next items call for."""
        self._take(self._comparison.steps(items))

    def end(self, items: list[Item]) -> None:
        """Do what the last items call for, and what is left to do after them."""
        self.page(items)
        self._take(self._comparison.rest())
        self._leave(0)
        self._record.finish()

    def _take(self, steps: Iterable[Step]) -> None:
        """Each is in the record before it is taken."""
        coming = iter(steps)
        while some := list(itertools.islice(coming, _AT_ONCE)):
            for step in some:
                if step.item is None:
                    assert step.known is not None
                    self._record.add(replace(step.known, gone=True))
                    continue
                if step.what is What.PUT and step.item.brief and not step.item.same_as:
                    raise NotTold
                self._record.add(Known(step.names, step.item.digest, self._covers(step)))
            self._record.flush()
            for step in some:
                self._do(step)

    def _covers(self, step: Step) -> bool:
        """Whether what is put at a place takes that of a whiteout which is not this image's own.

        The guest has it below its own upper directory. If it removes what it has put there, it need not list a
        whiteout for that, and what is below would be seen again.
        """
        if step.known is not None and step.known.covers:
            return True
        if step.what is not What.PUT or self._target.kind is Kind.PLAIN or self._target.mirror or not step.names:
            return False
        status = self._tree.status(step.names)
        return status is not None and _is_whiteout(status)

    def _do(self, step: Step) -> None:
        self._copy.check()
        try:
            self._carry_out(step)
        except OSError as error:
            error.filename = b"/".join(step.names)
            raise

    def _carry_out(self, step: Step) -> None:
        self._leave(len(step.names))
        if self._at:
            self._pass_by(step.names)
        if step.item is None:
            assert step.known is not None
            self._remove(step.names, covers=step.known.covers)
        elif step.item.is_directory:
            self._enter(step.item, put=step.what is What.PUT)
        elif step.what is What.PUT:
            self._put(step.item)

    def _leave(self, depth: int) -> None:
        """Be done with directories that have `depth` names or more."""
        while len(self._at) > depth:
            directory = self._at[-1]
            while directory.before:
                self._remove_unlisted(directory.before.pop())
            if directory.touched:
                inodes.set_time(self._tree.at(directory.item.names), directory.item)
            self._at.pop()

    def _pass_by(self, names: Names) -> None:
        """Remove what an exact directory has between the last item and this one."""
        before = self._at[-1].before
        while before and before[-1] < names[-1]:
            self._remove_unlisted(before.pop())
        if before and before[-1] == names[-1]:
            before.pop()

    def _hides_all_below(self) -> bool:
        """Whether the directory is one of which no layer below can be seen: a whiteout is of no use in it.

        Overlayfs would even show its name, for it looks for whiteouts only where it merges directories.
        """
        if not self._target.has_earlier:
            return False
        return any(each.exact or self._is_opaque(each) for each in self._at[1:])

    def _is_opaque(self, directory: _Directory) -> bool:
        if directory.opaque is None:
            directory.opaque = inodes.is_opaque(self._tree.at(directory.item.names))
        return directory.opaque

    def _remove_unlisted(self, name: bytes) -> None:
        self._remove((*self._at[-1].item.names, name), covers=False)

    def _remove(self, names: Names, *, covers: bool) -> None:
        """Take away what is at a place, and put the whiteout back that was there before."""
        self._at[-1].touched = True
        if covers and not self._hides_all_below():
            self._place(names, _make_whiteout)
            self.removed += 1
        elif self._tree.remove(names):
            self.removed += 1

    def _enter(self, item: Item, *, put: bool) -> None:
        above = self._at[-1] if self._at else None
        if put:
            self._dress(item)
        exact = (above.exact if above else self._all_exact) or (put and item.opaque and above is not None)
        directory = _Directory(item, touched=put, exact=exact)
        if exact:
            names = [os.fsencode(name) for name in os.listdir(self._tree.at(item.names))]
            directory.before = sorted(names, reverse=True)
        elif self._record.interrupted:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._record.making, dir_fd=self._tree.at(item.names))
        self._at.append(directory)

    def _dress(self, item: Item) -> None:
        """Make a directory, if there is none, and have it look like the item."""
        opaque = item.opaque
        if not item.names and inodes.is_dressed(self._tree.at(()), item):
            return  # every guest has it with a time of its own, also one that has written nothing
        self.applied += 1
        if item.names:
            self._at[-1].touched = True
            status = self._tree.status(item.names)
            if status is None or not stat.S_ISDIR(status.st_mode):
                if status is not None:
                    # What is no directory hides what is below it; so must the directory in its place. The guest need
                    # not say so: what an earlier start has left here is a layer of its overlay, and hides it.
                    opaque = opaque or not self._target.mirror
                    os.unlink(item.names[-1], dir_fd=self._tree.at(item.names[:-1]))
                os.mkdir(item.names[-1], 0o700, dir_fd=self._tree.at(item.names[:-1]))
        fd = self._tree.at(item.names)
        inodes.dress(fd, item)
        if opaque and item.names and self._target.kind is Kind.OVERLAY:
            inodes.set_opaque(fd)

    def _put(self, item: Item) -> None:
        self._at[-1].touched = True
        self.applied += 1
        if item.is_whiteout and (self._target.kind is Kind.PLAIN or item.needless or self._hides_all_below()):
            self.removed += self._tree.remove(item.names)
        elif item.same_as is not None:
            self._link(item.same_as, item.names)
        else:
            self._place(item.names, lambda directory, name: inodes.make(directory, name, item, self._copy))

    def _link(self, first: Names, names: Names) -> None:
        source = os.open(".", _DIRECTORY, dir_fd=self._tree.at(first[:-1]))
        try:
            self._place(
                names,
                lambda directory, name: os.link(
                    first[-1], name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False
                ),
            )
        finally:
            os.close(source)

    def _place(self, names: Names, make: Callable[[int, bytes], None]) -> None:
        """Have `make` make something in a directory, by another name, and then put it in its place."""
        directory, making = self._tree.at(names[:-1]), self._record.making
        try:
            try:
                make(directory, making)
            except FileExistsError:  # a run that was killed has left it: nobody else knows the name
                os.unlink(making, dir_fd=directory)
                make(directory, making)
            try:
                os.rename(making, names[-1], src_dir_fd=directory, dst_dir_fd=directory)
            except IsADirectoryError:
                self._tree.remove(names)
                directory = self._tree.at(names[:-1])
                os.rename(making, names[-1], src_dir_fd=directory, dst_dir_fd=directory)
        finally:
            # Also where the rename went well: it does nothing to two names of one file.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(making, dir_fd=directory)


def _make_whiteout(directory: int, name: bytes) -> None:
    os.mknod(name, stat.S_IFCHR, 0, dir_fd=directory)


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and not status.st_rdev
