"""What the URI of a `binary://` logger says. Pure; shim/task/logger.py starts it."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote

from shim.errors import SpecError

_SCHEMES: Final = ("binary", "binary-v2")


@dataclass(frozen=True, slots=True)
class LoggerAddress:
    """What a logger's URI says. `speaks` is whether it says that it is ready by a byte, not by closing."""

    program: str
    arguments: tuple[str, ...]
    speaks: bool


def parse(address: str) -> LoggerAddress | None:
    """The logger that a stream's address names; None where it names none. Raises SpecError for one without a path.

    Each key of the query is followed by its first value, as Go's url.Values gives them to containerd's shim.
    """
    scheme, is_uri, rest = address.partition("://")
    if not is_uri or scheme not in _SCHEMES:
        return None
    path, _, query = rest.partition("?")
    if not path.startswith("/"):
        raise SpecError(f"{address} names no logger: behind {scheme}:// must come the program's absolute path")
    first: dict[str, str] = {}
    for key, value in parse_qsl(query.partition("#")[0], keep_blank_values=True):
        first.setdefault(key, value)
    arguments = tuple(word for pair in first.items() for word in pair)
    if any("\0" in word for word in (unquote(path), *arguments)):
        raise SpecError(f"{address} names no logger: there is a NUL in it")
    return LoggerAddress(unquote(path), arguments, speaks=scheme == "binary-v2")
