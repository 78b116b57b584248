"""The templates in a list of mounts: `{{ mount 0 }}/upper`, `lowerdir={{ overlay 1 3 }}`.

A snapshotter cannot know where its earlier mounts will end up, so a mount whose type
starts with `format/` names them by their index. containerd expands that with Go's
text/template and four functions (core/mount/manager/format.go); this is exactly that
subset: a function's name and whole numbers between double braces. Everything else that
text/template can do is refused rather than guessed.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from shim.errors import SpecError, UnsupportedError

_ACTION: Final = re.compile(r"\{\{[ \t\r\n]*([A-Za-z_]\w*)((?:[ \t\r\n]+-?(?:0|[1-9][0-9]*))*)[ \t\r\n]*\}\}")


@dataclass(frozen=True, slots=True)
class ActiveMount:
    """A mount made before: what templates in later ones can name."""

    source: str
    target: str
    mount_point: str


def expand(text: str, mounts: Sequence[ActiveMount]) -> str:
    """Replace every action in `text`.

    Raises SpecError for a mount that is not there, UnsupportedError for any other template language.
    """
    done: list[str] = []
    at = 0
    while (start := text.find("{{", at)) >= 0:
        action = _ACTION.match(text, start)
        if action is None:
            raise UnsupportedError(
                f"mount template {text!r}: not understood", hint="known are source, target, mount and overlay"
            )
        done += (text[at:start], _call(text, action[1], [int(word) for word in action[2].split()], mounts))
        at = action.end()
    return "".join(done) + text[at:]


def _call(text: str, name: str, numbers: list[int], mounts: Sequence[ActiveMount]) -> str:
    function = _FUNCTIONS.get((name, len(numbers)))
    if function is None:
        raise UnsupportedError(f"mount template {text!r}: no function {name} with {len(numbers)} numbers")
    if any(not 0 <= number < len(mounts) for number in numbers):
        raise SpecError(f"mount template {text!r}: names a mount beyond the {len(mounts)} before it")
    return function(mounts, numbers)


def _overlay(mounts: Sequence[ActiveMount], numbers: list[int]) -> str:
    """The mount points from the first to the last number, both included; downwards if the first is larger."""
    first, last = numbers
    step = 1 if first <= last else -1
    return ":".join(mounts[index].mount_point for index in range(first, last + step, step))


_FUNCTIONS: Final[dict[tuple[str, int], Callable[[Sequence[ActiveMount], list[int]], str]]] = {
    ("source", 1): lambda mounts, numbers: mounts[numbers[0]].source,
    ("target", 1): lambda mounts, numbers: mounts[numbers[0]].target,
    ("mount", 1): lambda mounts, numbers: mounts[numbers[0]].mount_point,
    ("overlay", 2): _overlay,
}
