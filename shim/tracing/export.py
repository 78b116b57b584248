"""Sends spans to a collector, from a thread of its own.

The thread is begun with the first call that has ended, in the daemon: after the fork from the
service, and after the process that anchors are forked from. It imports OpenTelemetry (otel.py), and
sends the spans of one call after the other. A collector that does not answer holds up this thread and
nobody else: what it cannot send in time is dropped, and the log says so once.
"""

import queue
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from shim.log import Logger
from shim.tracing.span import Tree

if TYPE_CHECKING:
    from shim.tracing.otel import Sender

# Calls whose spans wait to be sent. A call has a few kilobytes of them.
_WAITING_MAX: Final = 256


class Exporter:
    """`attributes` are those of everything that is sent: what the spans are of."""

    def __init__(self, attributes: Mapping[str, str], log: Logger) -> None:
        self._attributes = attributes
        self._log = log
        self._waiting: queue.Queue[Tree | None] = queue.Queue(_WAITING_MAX)
        self._thread: threading.Thread | None = None
        # What went wrong in the thread and has not been logged; the log is for one thread alone.
        self._problem = ""
        self._told = False
        self._over = False

    def put(self, tree: Tree) -> None:
        """Have the spans of a call that has ended sent. Never waits, never fails."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait(tree)
        except queue.Full:
            self._problem = self._problem or f"more than {_WAITING_MAX} calls wait to be sent"
        self._tell()

    def close(self, deadline_s: float) -> None:
        """Send what waits, for so long at most. The process may end then: the thread does not keep it."""
        if self._thread is None:
            return
        end = time.monotonic() + deadline_s
        try:
            self._waiting.put(None, timeout=deadline_s)
        except queue.Full:
            self._problem = self._problem or "the collector takes nothing"
        else:
            self._thread.join(max(0.0, end - time.monotonic()))
            if self._thread.is_alive():
                self._problem = self._problem or f"the last ones were not sent within {deadline_s:g} s"
        self._over = True
        self._tell()

    def _tell(self) -> None:
        if self._problem and not self._told:
            self._told = True
            self._log.warning("spans are lost", reason=self._problem)

    def _run(self) -> None:
        """The thread."""
        sender: Sender | None = None
        try:
            from shim.tracing.otel import Sender as Installed

            sender = Installed(self._attributes)
        except ImportError as error:
            self._problem = f"the environment asks for spans, and qemubox[otel] is not installed: {error}"
        except Exception as error:  # noqa: BLE001 - the SDK's, about what stands in the environment
            self._problem = f"OpenTelemetry cannot be had: {type(error).__name__}: {error}"
        while (tree := self._waiting.get()) is not None:
            if self._over:
                return
            if sender is None:
                continue
            try:
                sender.send(tree)
            except Exception as error:  # noqa: BLE001 - see above
                self._problem = f"{type(error).__name__}: {error}"
