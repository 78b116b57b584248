"""What containerd publishes, as `ctr events` prints it."""

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from harness.containerd import Containerd
from harness.deadline import PATIENCE

# 2026-11-21 03:15:24.6 +0000 UTC default /tasks/exit {"container_id":"t1",...}
_LINE: Final = re.compile(r"^.*? (?P<namespace>\S+) (?P<topic>/\S+) (?P<event>\{.*\})$")
_SUBSCRIBE_DEADLINE_S: Final = 20.0
_MARKER_INTERVAL_S: Final = 0.2


@dataclass(frozen=True)
class Event:
    """One event: its topic, such as "/tasks/exit", and its fields."""

    topic: str
    namespace: str
    fields: dict[str, object]

    @property
    def container(self) -> object:
        """The id of the container that it is about."""
        return self.fields.get("container_id")


class Events:
    """Everything published since it was opened, in order."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._seen: list[Event] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def of(self, container: str) -> list[Event]:
        """The task events of one container so far."""
        with self._news:
            return [event for event in self._seen if event.topic.startswith("/tasks/") and event.container == container]

    def topics(self, container: str) -> list[str]:
        """Their topics, in order."""
        return [event.topic for event in self.of(container)]

    def wait(self, topic: str, container: str, deadline_s: float = 60.0) -> Event:
        """The first event of that topic and container. Fails after `deadline_s`."""
        found = self._wait(lambda event: event.topic == topic and event.container == container, deadline_s)
        assert found is not None, (
            f"no {topic} of {container} within {deadline_s * PATIENCE:g} s; there were {self.topics(container)}"
        )
        return found

    def _wait(self, wanted: Callable[[Event], bool], deadline_s: float) -> Event | None:
        end = time.monotonic() + deadline_s * PATIENCE
        with self._news:
            while True:
                for event in self._seen:
                    if wanted(event):
                        return event
                remaining = end - time.monotonic()
                if remaining <= 0 or not self._news.wait(remaining):
                    return None

    def await_marker(self, containerd: Containerd, name: str) -> None:
        """Make sure that the subscription is in force: publish something until it is seen."""
        end = time.monotonic() + _SUBSCRIBE_DEADLINE_S
        while time.monotonic() < end:
            containerd.ctr("namespaces", "label", "default", f"events-marker={name}{time.monotonic_ns()}").checked()
            if self._wait(lambda event: event.topic == "/namespaces/update", _MARKER_INTERVAL_S):
                return
        raise AssertionError("ctr events shows nothing")

    def join(self) -> None:
        """Wait for the reader, once the process has ended."""
        self._reader.join(10)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            found = _LINE.match(line.decode(errors="replace").strip())
            if found is None:
                continue
            event = Event(found["topic"], found["namespace"], json.loads(found["event"]))
            with self._news:
                self._seen.append(event)
                self._news.notify_all()


@contextmanager
def subscribed(containerd: Containerd) -> Iterator[Events]:
    """Events from now on."""
    with containerd.running(["events"]) as process:
        events = Events(process)
        try:
            events.await_marker(containerd, "subscribed")
            yield events
        finally:
            process.kill()
            events.join()
