"""What exists on the host because of one container, written down before it is made.

A shim can be killed at any instruction. So every process, path, mount and network
namespace is recorded first and made second; `delete` (and a failed Create) plays the
record backwards, and undoing what was never made is no error.

The journal is a file of JSON lines in the container's directory under the runtime
directory, a tmpfs: what it names does not survive a reboot, and neither need it.
(What does survive a reboot, a writable image or a CNI plugin's lease, is recorded too;
`qemubox gc` finds those whose journal is gone.) A line cut short by a kill names nothing
that was made, and is passed over.
"""

from __future__ import annotations

import errno
import os

# The name is what type checkers look for; importing it from `typing` would cost the import (shim/entry.py).
TYPE_CHECKING = False
if TYPE_CHECKING:
    Facts = dict[str, str | int]

FILE_NAME = "journal"
# The kinds of resources, and the fact that each is found by.
KINDS = {
    "process": "marker",
    "child": "marker",
    "path": "path",
    "mount": "path",
    "netns": "path",
    "draft": "path",
    "poststop": "path",
    "cni": "path",
    "ingress": "path",
    "writable": "path",
}
# What else a kind cannot be undone without.
_FURTHER = {"ingress": "link"}


class Journal:
    """Appends to the journal of one container. Not for use by two processes at once."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._path = os.path.join(directory, FILE_NAME)

    def record(self, kind: str, **facts: str | int) -> None:
        """Write down one resource that is about to be made.

        Kinds and their facts: `process` marker (a text found in its command line), `child` marker (pid and start time
        of a program that waits for us before it does anything, or ends with us by itself),
        `path` path (file or whole tree), `mount` path, `netns` path, `draft` path (a file in
        the making by who has `path`.lock locked), `poststop` path (a hook that is to run, shim/hooks/poststop.py),
        `cni` path (an attachment to a CNI network, shim/network/attached.py), `ingress` path and link (a network
        namespace that is not ours, and the interface in it that gets an ingress qdisc; with `inode`, the namespace's
        number, nothing is done to another that has come by that path), `writable` path (the place of a snapshot's
        writable image, which stays once a container may have written to it, shim/rootfs/place.py; once more with the
        `pid` that has it locked); paths are absolute.
        Raises OSError where it cannot be written, ValueError for what could not be undone.
        """
        import json

        check(kind, facts)
        # The newline in front parts it from a line that a full file system has cut short.
        line = ("\n" + json.dumps({"kind": kind, **facts}) + "\n").encode()
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.write(fd, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            error.filename = self._path  # write(2) knows of no name, and whoever reads the message must
            raise
        finally:
            os.close(fd)

    def entries(self) -> list[Facts]:
        """All records, oldest first; a missing journal has none."""
        try:
            with open(self._path, "rb") as file:
                lines = file.read().splitlines()
        except FileNotFoundError:
            return []
        import json

        found: list[Facts] = []
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:  # the line that was being written when the shim was killed
                continue
            if isinstance(entry, dict) and isinstance(entry.get("kind"), str):
                found.append(entry)
        return found


def check(kind: str, facts: Facts) -> None:
    """Raise ValueError for a record that cannot be undone, or whose undoing would reach further than meant.

    An empty marker stands in every command line, and a relative path means another file in another process.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}")
    value = facts.get(KINDS[kind])
    if not isinstance(value, str) or not value:
        raise ValueError(f"a {kind} needs a {KINDS[kind]}")
    further = _FURTHER.get(kind)
    if further and (not isinstance(facts.get(further), str) or not facts[further]):
        raise ValueError(f"the {kind} {value} needs a {further}")
    if KINDS[kind] == "path" and (not value.startswith("/") or not value.strip("/")):
        raise ValueError(f"{value} is no absolute path below the root directory")
