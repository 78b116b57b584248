"""The command line that containerd gives a shim.

Go's flag package reads it in the reference shim, so `-x`, `--x`, `-x=v` and `-x v` all
mean the same, a boolean takes a value only behind `=`, and the first word that is no
flag is the action (pkg/shim/shim.go, containerd). argparse would cost 10 ms of the
start and does not do single dashes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

ACTIONS = ("start", "delete")
_TEXT_FLAGS = {"namespace", "address", "publish-binary", "id", "bundle", "socket", "debug-socket"}
_BOOLEAN_FLAGS = {"debug", "info", "v", "version", "h", "help"}


class ArgumentsError(Exception):
    """The command line is not one that containerd would write; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """What was asked for. Texts not given are empty."""

    action: str = ""
    namespace: str = ""
    address: str = ""
    publish_binary: str = ""
    container_id: str = ""
    bundle: str = ""
    debug: bool = False
    info: bool = False
    version: bool = False
    help: bool = False


def parse(words: Sequence[str]) -> Arguments:
    """Read the words behind the program's name.

    Raises ArgumentsError for an unknown flag, a flag without its value, or an unknown action.
    """
    texts: dict[str, str] = {}
    booleans: set[str] = set()
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] not in ("-", "--"):
        name, has_value, value = rest.pop(0).lstrip("-").partition("=")
        if name in _BOOLEAN_FLAGS:
            if not has_value or _boolean(name, value):
                booleans.add(name)
        elif name in _TEXT_FLAGS:
            if not has_value:
                if not rest:
                    raise ArgumentsError(f"flag needs an argument: -{name}")
                value = rest.pop(0)
            texts[name] = value
        else:
            raise ArgumentsError(f"flag provided but not defined: -{name}")
    action = rest[0] if rest else ""
    if action and action not in ACTIONS:
        raise ArgumentsError(f"unknown action {action!r}: expected one of {', '.join(ACTIONS)}")
    return Arguments(
        action=action,
        namespace=texts.get("namespace", ""),
        address=texts.get("address", ""),
        publish_binary=texts.get("publish-binary", ""),
        container_id=texts.get("id", ""),
        bundle=texts.get("bundle", ""),
        debug="debug" in booleans,
        info="info" in booleans,
        version=not booleans.isdisjoint({"v", "version"}),
        help=not booleans.isdisjoint({"h", "help"}),
    )


def _boolean(name: str, value: str) -> bool:
    if value in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if value in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise ArgumentsError(f"invalid boolean value {value!r} for -{name}")
