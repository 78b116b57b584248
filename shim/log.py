"""The shim's log: one event a line, into the FIFO that containerd reads.

The FIFO is `log` in the bundle; containerd opens it before `start` and copies what
comes to its own standard error, so the lines look like its own (logfmt). It goes away
when containerd restarts and comes back with the next one; a line that nobody can take
is dropped, never waited for: a log must not stop a container.
"""

import logging
import os
import sys
from pathlib import Path
from typing import Final, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

Logger = structlog.typing.FilteringBoundLogger


class FifoWriter:
    """The write end of the log FIFO; what structlog needs of a text file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        # The FIFO has taken the beginning of a line and not its end.
        self._cut = False

    def write(self, text: str) -> int:
        """Write whole lines; at most one try to open the FIFO again after its reader changed."""
        data = text.encode(errors="replace")
        for _ in range(2):
            if self._fd < 0 and not self._open():
                break
            line = b"\n" + data if self._cut else data
            try:
                self._cut = os.write(self._fd, line) < len(line)
                break
            except BlockingIOError:  # full: containerd does not read
                break
            except OSError:  # EPIPE: containerd went away
                self.close()
        return len(text)

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        """Close the write end; the next write opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> bool:
        try:
            self._fd = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # ENXIO: nobody has the read end open; ENOENT: the bundle is gone
            return False
        return True


def open_log(path: Path, *, level: str, namespace: str, container_id: str) -> Logger:
    """Send every log line of this process to the FIFO at `path`; the answer is a logger.

    `level` is one of debug, info, warning, error. Each line names the container.
    """

    def add_container(_logger: object, _method: str, event: EventDict) -> EventDict:
        event.update(namespace=namespace, id=container_id)
        return event

    # PrintLogger calls write and flush, and nothing else of a text file.
    return _configure(cast("TextIO", FifoWriter(path)), level, [add_container])


def open_service_log() -> Logger:
    """Send every log line of this process to standard error, for journald; the answer is a logger."""
    return _configure(sys.stderr, "info", [])


def _configure(file: TextIO, level: str, processors: list[Processor]) -> Logger:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", key="time"),
            *processors,
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("msg"),
            structlog.processors.LogfmtRenderer(key_order=["time", "level", "msg"], drop_missing=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(file),
        cache_logger_on_first_use=False,
    )
    return cast("Logger", structlog.get_logger())
