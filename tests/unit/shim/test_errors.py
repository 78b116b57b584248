"""The tree that shim/errors.py draws is the tree that is there, with its statuses."""

import inspect
import re

from shim import errors
from shim.errors import GuestError, QemuboxError
from ttrpc import Code


def _drawn() -> dict[str, tuple[int, str]]:
    """Each class in the drawing: how deep it stands, and its status."""
    lines = (errors.__doc__ or "").splitlines()
    found = {}
    for line in lines:
        if match := re.match(r"^    ([│├└─ ]*)(\w+Error)\b(?:.*\s(\w+))?$", line):
            found[match[2]] = (len(match[1]) // 4, match[3] or "")
    return found


def _classes() -> dict[str, type[QemuboxError]]:
    return {
        name: item for name, item in vars(errors).items() if inspect.isclass(item) and issubclass(item, QemuboxError)
    }


def test_the_drawing_has_every_class_at_its_depth() -> None:
    depth = {name: item.__mro__.index(QemuboxError) for name, item in _classes().items()}
    assert {name: level for name, (level, _) in _drawn().items()} == depth


def test_the_drawing_has_every_status() -> None:
    for name, item in _classes().items():
        if item.__mro__.index(QemuboxError) == 1 and item is not GuestError:
            assert _drawn()[name][1].upper() == item.code.name.replace("_", ""), name


def test_the_hint_follows_the_message() -> None:
    assert str(errors.HostError("it broke", hint="mend it")) == "it broke (mend it)"
    assert str(errors.HostError("it broke")) == "it broke"


def test_the_guests_own_status_is_kept() -> None:
    error = GuestError(Code.NOT_FOUND, "no such container")
    assert (error.status, str(error)) == (Code.NOT_FOUND, "no such container")
