"""The arguments of `qemubox cp`, and where what is copied comes to lie: the table of docker cp. Pure."""

import os
import posixpath
from dataclasses import dataclass

from shim.errors import SpecError

STREAM = b"-"


@dataclass(frozen=True, slots=True)
class Place:
    """One of the two arguments. `container` is empty for what is on the host; `path` is as it was given."""

    container: str
    path: bytes

    @property
    def is_stream(self) -> bool:
        """Whether it is standard input or output, as tar."""
        return not self.container and self.path == STREAM

    @property
    def contents(self) -> bool:
        """What is in the directory is meant, and not the directory: `dir/.`, and the root directory."""
        return self.path == b"." or self.path.endswith(b"/.") or not self.path.strip(b"/")

    @property
    def says_directory(self) -> bool:
        """It can only be a directory, by how it is written."""
        return self.contents or self.path.endswith(b"/")

    @property
    def clean(self) -> bytes:
        """A container's path from its root directory, without `.`, `..` and slashes that say nothing."""
        return b"/" + posixpath.normpath(b"/" + self.path).lstrip(b"/")

    @property
    def name(self) -> bytes:
        """What its copy is called in a directory."""
        return posixpath.basename(self.clean if self.container else os.path.abspath(self.path))

    def __str__(self) -> str:
        path = os.fsdecode(self.path)
        return f"{self.container}:{path}" if self.container else path


def parse(argument: str) -> Place:
    """`CONTAINER:PATH`, or a path of the host: one with a colon in it begins with `/` or `.`, as for docker cp."""
    container, colon, path = argument.partition(":")
    if not colon or "/" in container or container.startswith(".") or not container:
        return Place("", os.fsencode(argument))
    if not path:
        raise SpecError(f"{argument}: a path is missing behind the colon")
    return Place(container, os.fsencode(path))


def check(source: Place, destination: Place) -> None:
    """Raises SpecError unless exactly one of them is a container's."""
    if source.container and destination.container:
        raise SpecError("copying between containers is not supported", hint="copy to the host, and from there")
    if not source.container and not destination.container:
        raise SpecError(f"neither {source} nor {destination} names a container", hint="write CONTAINER:PATH")
    for place in (source, destination):
        if not place.path:
            raise SpecError("an empty path names nothing")


@dataclass(frozen=True, slots=True)
class Landing:
    """Into which existing directory, and as what; an empty name is the directory itself."""

    directory: bytes
    name: bytes


@dataclass(frozen=True, slots=True)
class There:
    """What is at the destination, links followed: its path, and whether there is anything, and a directory."""

    path: bytes
    exists: bool
    is_directory: bool


def landing(source: Place, source_is_directory: bool, destination: Place, there: There) -> Landing:
    """Where docker cp puts it. Raises SpecError where it refuses."""
    if source.says_directory and not source_is_directory:
        raise SpecError(f"{source} is not a directory")
    if there.is_directory:
        return Landing(there.path, b"" if source.contents else source.name)
    if there.exists and source_is_directory:
        raise SpecError(f"cannot copy a directory to a file: {destination} is one")
    if there.exists and destination.says_directory:
        raise SpecError(f"{destination} is not a directory")
    if destination.says_directory and not source_is_directory:
        raise SpecError(f"{destination}: the directory must exist", hint="leave the slash away for a file of that name")
    directory, name = posixpath.split(there.path.rstrip(b"/"))
    if name in (b"", b".", b".."):
        raise SpecError(f"{destination}: no such directory")
    return Landing(directory or b".", name)
