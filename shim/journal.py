"""What exists on the host because of one container, written down before it is made.

A shim can be killed at any instruction. So every process, path, mount and network
namespace is recorded first and made second; `delete` (and a failed Create) plays the
record backwards, and undoing what was never made is no error.

The journal is a file of JSON lines in the container's directory under the runtime
directory, a tmpfs: what it names does not survive a reboot, and neither need it.
(What does survive a reboot, a writable layer, is recorded too; `qemubox gc` of a later
release finds those whose journal is gone.) A line cut short by a kill names nothing
that was made, and is passed over.
"""

import json
import os
from pathlib import Path
from typing import Final

FILE_NAME: Final = "journal"

Facts = dict[str, str | int]


class Journal:
    """Appends to the journal of one container. Not for use by two processes at once."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME

    def record(self, kind: str, **facts: str | int) -> None:
        """Write down one resource that is about to be made.

        Kinds and their facts: `process` marker (a text found in its command line),
        `path` path (file or whole tree), `mount` path, `netns` path.
        """
        line = json.dumps({"kind": kind, **facts}) + "\n"
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, line.encode())
        finally:
            os.close(fd)

    def entries(self) -> list[Facts]:
        """All records, oldest first; a missing journal has none."""
        try:
            text = self._path.read_text()
        except FileNotFoundError:
            return []
        found: list[Facts] = []
        for line in text.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # the line that was being written when the shim was killed
                continue
            if isinstance(entry, dict) and isinstance(entry.get("kind"), str):
                found.append(entry)
        return found
