"""What can go wrong beside the kernel's own OSError.

ArchiveError
├── MalformedError   the stream is not what `records` says it is: its sender is broken, or lies
├── CutError         it ended before its end record
└── RefusedError     what it asks for is not done: a file in the place of a directory, say
"""

import os


class ArchiveError(Exception):
    """Base; the message is one line for people, with the path."""


class MalformedError(ArchiveError):
    """The stream is not what it must be."""


class CutError(ArchiveError):
    """There would be more of the stream, and it does not come."""

    def __init__(self) -> None:
        super().__init__("the copy was cut short")


class RefusedError(ArchiveError):
    """An entry that is not put where it says."""


def shown(path: bytes) -> str:
    """A path of anybody's for a message: printable, and of bounded length. Pure."""
    text = path.decode(errors="backslashreplace")
    text = "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text)
    return text if len(text) <= 200 else f"{text[:197]}..."


def named(error: OSError, path: bytes) -> OSError:
    """The same error with the entry's path, whatever the name was in its directory."""
    number = error.errno or 0
    return OSError(number, os.strerror(number), shown(path)) if path else OSError(number, os.strerror(number))


def said(error: OSError | ArchiveError) -> str:
    """What people are told of it: the path, and what is wrong. Pure."""
    if isinstance(error, ArchiveError):
        return str(error)
    text = error.strerror or str(error)
    return f"{os.fsdecode(error.filename)}: {text}" if error.filename else text
