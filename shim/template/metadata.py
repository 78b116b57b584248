"""What is known of a template, kept as JSON beside its state.

The state is checked at each start without reading it: size, inode and both times must
be those that were noted when it had been written and hashed. Whatever writes to the
file, or puts another in its place, changes its ctime, which nobody can set
(inode(7)). Reading and hashing it all is what `qemubox template verify` does.
"""

import json
import os
import stat
from dataclasses import asdict, dataclass
from typing import Final

from shim.errors import TemplateError

# Raised when what stands in the files, or what vminitd expects when it wakes up, changes its meaning.
FORMAT: Final = 2


@dataclass(frozen=True, slots=True)
class Metadata:
    """One template. `namespace` is containerd's, empty for a template that all may use."""

    format: int
    fingerprint: str
    namespace: str
    qemu_version: str
    # Of the state file: its length, how much of the disk it takes, and how much of its beginning is memory.
    size: int
    stored: int
    memory_size: int
    sha256: str
    inode: int
    mtime_ns: int
    ctime_ns: int
    # Seconds since 1970, and how long it took.
    built_at: int
    build_ms: int

    def to_json(self) -> str:
        """As it is kept."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def check_state(self, found: os.stat_result) -> None:
        """Raise TemplateError unless `found` is the very file that was hashed, and only root can have written it."""
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise TemplateError("its state may be read or written by others than root")
        if found.st_size != self.size:
            raise TemplateError(f"its state has {found.st_size} bytes, not {self.size}")
        if (found.st_ino, found.st_mtime_ns, found.st_ctime_ns) != (self.inode, self.mtime_ns, self.ctime_ns):
            raise TemplateError("its state was changed after it was made")


def parse(text: str) -> Metadata:
    """Read what `to_json` wrote. Raises TemplateError for anything else."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise TemplateError(f"its metadata is no JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise TemplateError(f"its metadata is not of format {FORMAT}")
    kinds = {name: str if kind is str or kind == "str" else int for name, kind in Metadata.__annotations__.items()}
    if set(document) != set(kinds) or any(type(document[name]) is not kind for name, kind in kinds.items()):
        raise TemplateError("its metadata has other fields than it should")
    return Metadata(**document)
