"""What is to be done: what is listed now against what was applied before. Pure.

Both come in the order of their names, so that neither has to be kept: of two trees of any size, one name of each is
looked at.
"""

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from shim.changes.beneath import Names
from shim.changes.listing import RACY, Item
from shim.changes.record import Known


class What(enum.Enum):
    """What is to be done with a name."""

    # It is as it was applied.
    KEEP = enum.auto()
    # It is new, or has changed, or may have.
    PUT = enum.auto()
    # It was applied and is not listed any more; its directory is.
    REMOVE = enum.auto()


@dataclass(frozen=True, slots=True)
class Step:
    """One name. `item` is what is listed, `known` what was applied, each None where there is none."""

    what: What
    names: Names
    item: Item | None
    known: Known | None


class Comparison:
    """One listing against what was `known` before it."""

    def __init__(self, known: Iterator[Known]) -> None:
        self._known: Final = known
        self._next = next(known, None)
        # The directory that the listing is in, if it is not further up.
        self._directory: Names = ()
        # Inodes of several names that are made anew: all of their names are.
        self._anew: set[int] = set()

    def steps(self, items: Iterable[Item]) -> Iterator[Step]:
        """What to do with the next items, and with what lies between them."""
        for item in items:
            while self._next is not None and self._next.names < item.names:
                yield from self._gone(self._next)
                self._next = next(self._known, None)
            known = None
            if self._next is not None and self._next.names == item.names:
                known, self._next = self._next, next(self._known, None)
            self._directory = item.names if item.is_directory else item.names[:-1]
            yield Step(What.KEEP if self._is_unchanged(item, known) else What.PUT, item.names, item, known)

    def rest(self) -> Iterator[Step]:
        """What to do after the last item."""
        while self._next is not None:
            yield from self._gone(self._next)
            self._next = next(self._known, None)

    def _gone(self, known: Known) -> Iterator[Step]:
        """Nothing where its directory has gone, too, or is none any more: then it went with that."""
        directory = known.names[:-1]
        if self._directory[: len(directory)] == directory:
            yield Step(What.REMOVE, known.names, None, known)

    def _is_unchanged(self, item: Item, known: Known | None) -> bool:
        several = item.links > 1 and not item.is_directory
        if known is None or known.digest == RACY or known.digest != item.digest:
            if several:
                self._anew.add(item.inode)
            return False
        return not (several and item.same_as is not None and item.inode in self._anew)
