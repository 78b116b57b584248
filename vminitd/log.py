"""One line per event to the kernel log, which goes to the console and from there to the host.

The levels are syslog's; the kernel's own `loglevel` decides what of it reaches the console. Never anything of a
specification or an environment: they hold secrets. Writing to a serial console is slow, so info is quiet.
"""

import os
from contextvars import ContextVar

LEVELS = {"debug": 7, "info": 6, "warning": 4, "error": 3}
"""By the names that the shim uses."""

_MAX_LINE = 900  # the kernel refuses records longer than about 1 KiB (LOG_LINE_MAX, printk.c)

trace_id: ContextVar[str] = ContextVar("trace id", default="")
"""Of the call that is being served: in the debug lines, so that what the host says and what the guest says of one
call can be found together."""

_level = LEVELS["info"]
_sink = 2


def to_kernel_log() -> None:
    """From here on, write to the kernel log instead of the standard error; /dev must be mounted."""
    global _sink
    _sink = os.open("/dev/kmsg", os.O_WRONLY | os.O_CLOEXEC)


def set_level(name: str) -> None:
    """Raises KeyError for a name that is not in LEVELS."""
    global _level
    _level = LEVELS[name]


def debug(message: str, **facts: str | int) -> None:
    if trace := trace_id.get():
        facts["trace"] = trace
    _write(LEVELS["debug"], message, facts)


def info(message: str, **facts: str | int) -> None:
    _write(LEVELS["info"], message, facts)


def warning(message: str, **facts: str | int) -> None:
    _write(LEVELS["warning"], message, facts)


def error(message: str, **facts: str | int) -> None:
    _write(LEVELS["error"], message, facts)


def announce(message: str) -> None:
    """What the host waits for on the console: shown whatever level is set here, as the kernel shows errors."""
    _put(LEVELS["error"], message, {})


def failure(message: str, failed: BaseException) -> None:
    """An exception that nobody expected, with the places that it came through, one a line."""
    error(message, error=f"{type(failed).__name__}: {failed}")
    trace = failed.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        error("at", file=code.co_filename, line=trace.tb_lineno, function=code.co_name)
        trace = trace.tb_next


def line(message: str, facts: dict[str, str | int]) -> str:
    """One line of printable text: `message`, then key=value."""
    text = " ".join([message, *(f"{key}={value}" for key, value in facts.items())])
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def _write(level: int, message: str, facts: dict[str, str | int]) -> None:
    if level <= _level:
        _put(level, message, facts)


def _put(level: int, message: str, facts: dict[str, str | int]) -> None:
    record = f"<{level}>vminitd: {line(message, facts)}".encode()[:_MAX_LINE]
    os.write(_sink, record + b"\n")
