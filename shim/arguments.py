"""The command line that containerd gives a shim.

Go's flag package reads it in the reference shim, so `-x`, `--x`, `-x=v` and `-x v` all
mean the same, a boolean takes a value only behind `=`, and the first word that is no
flag is the action (pkg/shim/shim.go, containerd). argparse would cost 10 ms of the
start and does not do single dashes.
"""

from __future__ import annotations

# The name is what type checkers look for; importing it from `typing` would cost the import (shim/entry.py).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

ACTIONS = ("start", "delete")
_TEXT_FLAGS = {"namespace", "address", "publish-binary", "id", "bundle", "socket", "debug-socket"}
_BOOLEAN_FLAGS = {"debug", "info", "v", "version", "h", "help"}


class ArgumentsError(Exception):
    """The command line is not one that containerd would write; the text says what is wrong."""


class Arguments:
    """What was asked for. Texts not given are empty."""

    def __init__(
        self,
        *,
        action: str = "",
        namespace: str = "",
        address: str = "",
        publish_binary: str = "",
        container_id: str = "",
        bundle: str = "",
        debug: bool = False,
        info: bool = False,
        version: bool = False,
        help: bool = False,
    ) -> None:
        self.action = action
        self.namespace = namespace
        self.address = address
        self.publish_binary = publish_binary
        self.container_id = container_id
        self.bundle = bundle
        self.debug = debug
        self.info = info
        self.version = version
        self.help = help


def parse(words: Sequence[str]) -> Arguments:
    """Read the words behind the program's name.

    Raises ArgumentsError for an unknown flag, a flag without its value, or an unknown action.
    """
    texts: dict[str, str] = {}
    booleans: dict[str, bool] = {}
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        name, has_value, value = word.removeprefix("-").removeprefix("-").partition("=")
        if name in _BOOLEAN_FLAGS:
            booleans[name] = _boolean(name, value) if has_value else True
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
        debug=booleans.get("debug", False),
        info=booleans.get("info", False),
        version=booleans.get("v", False) or booleans.get("version", False),
        help=booleans.get("h", False) or booleans.get("help", False),
    )


def _boolean(name: str, value: str) -> bool:
    if value in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if value in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise ArgumentsError(f"invalid boolean value {value!r} for -{name}")
