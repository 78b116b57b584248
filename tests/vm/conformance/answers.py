"""What a row of the table is: a call, a state, what runc's shim answers and what ours does, as values.

`Is` is one answer. `code` is a status code of ttrpc, or what the caller sees where there is no answer ("waits",
"connection closed"). `words` is all that an answer says (conformance/calls.py), and of an error what its message must
contain; C stands for the container's id. `after` is the container's state then (an exec's, where the row's state is
one of an exec), if it is not what it was. `events` are told because of the call, `maybe` may be.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

CLOSED: Final = "connection closed"
WAITS: Final = "waits"


@dataclass(frozen=True)
class Is:
    """One answer, see above."""

    code: str = "OK"
    words: str = ""
    after: str = ""
    events: tuple[str, ...] = ()
    maybe: tuple[str, ...] = ()

    def __str__(self) -> str:
        """As the table shows it."""
        said = f"{self.code}: {self.words}" if self.words else self.code
        then = f" → {self.after}" if self.after else ""
        events = ", ".join((*self.events, *(f"{event}?" for event in self.maybe)))
        return f"{said}{then}{f' ({events})' if events else ''}"

    def admits(self, code: str, words: str) -> bool:
        """Whether that answer is this one."""
        if code not in self.code.split(" or "):
            return False
        return words in self.words.split(" or ") if code == "OK" else self.words in words


@dataclass(frozen=True)
class Row:
    """A line of the table. `runc` is None where the state means nothing for it; `note` names a footnote."""

    call: str
    state: str
    runc: Is | None
    ours: Is
    # runc's shim of containerd 2.3.4, where it answers otherwise.
    newest: Is | None = None
    note: str = ""

    def expected(self, runtime: str, containerd: str) -> Is:
        """What that runtime answers on that containerd."""
        if runtime == "qemubox":
            return self.ours
        assert self.runc is not None, f"{self} means nothing for runc"
        return self.newest if self.newest is not None and containerd != "1.6" else self.runc

    def __str__(self) -> str:
        return f"{self.state}-{self.call}"


def ok(words: str = "", after: str = "", events: str = "", maybe: str = "") -> Is:
    """An answer without an error; events with a comma between them."""
    return Is("OK", words, after, _events(events), _events(maybe))


def _events(text: str) -> tuple[str, ...]:
    return tuple(text.split(", ")) if text else ()


def unknown(words: str) -> Is:
    """runc's word for most of what it refuses."""
    return Is("UNKNOWN", words)


def refused(words: str) -> Is:
    """Ours for what the state does not allow."""
    return Is("FAILED_PRECONDITION", words)


def missing(words: str) -> Is:
    """There is no such container or process."""
    return Is("NOT_FOUND", words)


waits: Final = Is(WAITS)
not_there: Final = Is("UNIMPLEMENTED", "is not implemented")


def same(call: str, answer: Is, note: str = "") -> Row:
    """Both answer alike."""
    return Row(call, "", answer, answer, note=note)


def row(call: str, runc: Is, ours: Is, note: str = "", newest: Is | None = None) -> Row:
    """They do not, if only in their words."""
    return Row(call, "", runc, ours, newest, note)


def ours(call: str, answer: Is, note: str = "") -> Row:
    """runc has no such state."""
    return Row(call, "", None, answer, note=note)


def of(state: str, rows: Iterable[Row]) -> tuple[Row, ...]:
    """Those rows for that state."""
    return tuple(replace(each, state=state) for each in rows)
