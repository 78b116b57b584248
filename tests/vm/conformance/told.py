"""What was told of one container: its events, taken one after the other, and what must hold of all of them."""

from typing import Final

from harness.deadline import eventually
from harness.events import Event, Events

_DEADLINE_S: Final = 15.0


def name(event: Event) -> str:
    """In short: the topic's last word, and which process it is about, if it is not the first."""
    topic = event.topic.removeprefix("/tasks/")
    which = event.fields.get("exec_id") or event.fields.get("id") or ""
    return topic if which in ("", event.container) else f"{topic} {which}"


class Told:
    """The events of one container, from the first. What must come is announced by `owe`, and waited for by `take`.

    `of_runc` passes over what runc's shim tells too much: the end of a cgroup of version 1 now and then looks like an
    oom to it, and 2.3.4 tells the exit of an exec twice once in a few hundred.
    """

    def __init__(self, events: Events | None, container_id: str, *, of_runc: bool) -> None:
        self._of_runc = of_runc
        self._events = events
        self._container_id = container_id
        self._owed = 0
        self._taken = 0

    @property
    def all(self) -> list[str]:
        """All so far; none where nobody listens."""
        if self._events is None:
            return []
        told = [name(event) for event in self._events.of(self._container_id)]
        return _told_once(told) if self._of_runc else told

    def owe(self, count: int) -> None:
        """So many more are to come."""
        self._owed += count

    def take(self) -> list[str]:
        """Those since the last time: all that are to come by now, waited for, and what there is besides."""

        def enough() -> bool:
            return len(self.all) >= self._owed

        eventually(enough, f"{self._owed} events; there are {self.all}", _DEADLINE_S)
        found = self.all[self._taken :]
        self._taken += len(found)
        self._owed = self._taken
        return found


def _told_once(told: list[str]) -> list[str]:
    """Without ooms, and without the exit of what has exited already."""
    kept: list[str] = []
    exited: set[str] = set()
    for event in told:
        topic, _, exec_id = event.partition(" ")
        if topic == "oom" or (topic == "exit" and exec_id in exited):
            continue
        if topic == "exit" and exec_id:
            exited.add(exec_id)
        elif topic == "exec-added":
            exited.discard(exec_id)
        kept.append(event)
    return kept


class Lives:
    """The lives of one container, as its events tell them (contract 1.7). Feed it each; `fault` says what is wrong."""

    def __init__(self) -> None:
        # "", created, running, paused, exited; of execs: added, running, exited.
        self._container = ""
        self._execs: dict[str, str] = {}

    def feed(self, event: str) -> str:
        """The next event: empty, or what is wrong with it."""
        topic, _, exec_id = event.partition(" ")
        before = self._execs.get(exec_id, "") if exec_id else self._container
        if (topic, bool(exec_id)) not in _MOVES:
            return f"{event} is unknown"
        allowed, after = _MOVES[topic, bool(exec_id)]
        if before not in allowed:
            return f"{event} after {before or 'nothing'}"
        if exec_id:
            self._execs[exec_id] = after
            return "" if self._container in _HAS_EXECS else f"{event} with a container {self._container or 'of none'}"
        self._container = after
        return f"{event} before the exit of {self._running}" if topic == "exit" and self._running else ""

    @property
    def _running(self) -> list[str]:
        return [exec_id for exec_id, state in self._execs.items() if state == "running"]

    @property
    def unfinished(self) -> str:
        """What is still owed when all is said to be over: empty, or what."""
        return f"the container is {self._container}" if self._container else ""


_HAS_EXECS: Final = ("created", "running", "paused")
# By topic, and whether it is about an exec: before, after.
_MOVES: Final[dict[tuple[str, bool], tuple[tuple[str, ...], str]]] = {
    ("create", False): (("",), "created"),
    ("start", False): (("created",), "running"),
    ("paused", False): (("running",), "paused"),
    ("resumed", False): (("paused",), "running"),
    ("exit", False): (("created", "running", "paused"), "exited"),
    ("delete", False): (("exited",), ""),
    # An id is free again after its Delete, of which nothing is told.
    ("exec-added", True): (("", "added", "exited"), "added"),
    ("exec-started", True): (("added",), "running"),
    ("exit", True): (("running",), "exited"),
}


def faults(told: list[str]) -> list[str]:
    """What is wrong with the events of a container that is no more, a line each."""
    lives = Lives()
    found = [fault for event in told if (fault := lives.feed(event))]
    return [*found, *([lives.unfinished] if lives.unfinished else [])]
