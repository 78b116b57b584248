"""What the areas of a check look at: the host's files below a root, its programs, the configuration."""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cni import process
from cni.process import CannotExecute
from shim.config import Config
from shim.errors import HostError
from shim.hypervisor import Hypervisor
from shim.journal import Journal

_OUTPUT_MAX: Final = 4 << 20
_RUN_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Said:
    """How a program ended (a signal is a negative status), and what it wrote: standard output, then error."""

    status: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """All of it."""
        return self.out + self.err

    @property
    def last(self) -> str:
        """Its last words, for a message."""
        lines = [line.strip() for line in (self.err or self.out).splitlines() if line.strip()]
        return lines[-1] if lines else "no message"


@dataclass(slots=True)
class Host:
    """`root` is where the host's files are seen, so that tests can show others.

    `directory` is where probes may make things, with their journal; None, and why, where there can be none.
    """

    config: Config
    quick: bool = False
    root: Path = Path("/")
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    directory: Path | None = None
    journal: Journal | None = None
    no_directory: str = "there is no directory for it"
    # What the shim would take, once the accelerator was chosen.
    hypervisor: Hypervisor | None = None

    def path(self, name: str) -> Path:
        """Where a file of the host is."""
        return self.root / name.lstrip("/")

    def text(self, name: str) -> str | None:
        """What is in a file; None where there is none. Raises OSError."""
        try:
            return self.path(name).read_text(errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return None

    def number(self, name: str) -> int | None:
        """The number in a file; None where there is none. Raises OSError."""
        text = (self.text(name) or "").strip()
        return int(text) if re.fullmatch(r"-?\d+", text) else None

    def names(self, directory: str) -> list[str]:
        """What is in a directory; nothing where there is none. Raises OSError."""
        try:
            return sorted(os.listdir(self.path(directory)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def which(self, program: str) -> str | None:
        """The path of a program that is named by path or by name."""
        return shutil.which(program, path=self.environ.get("PATH", os.defpath))

    def place(self) -> tuple[Path, Journal]:
        """A directory for a probe, and its journal. Raises HostError where there can be none."""
        if self.directory is None or self.journal is None:
            raise HostError(f"not tried: {self.no_directory}")
        return self.directory, self.journal

    async def run(
        self,
        words: Sequence[str],
        *,
        stdin: bytes = b"",
        environ: Mapping[str, str] | None = None,
        deadline_s: float = _RUN_S,
    ) -> Said:
        """Run a program to its end; it dies with us. Raises HostError where it cannot be run, or does not end."""
        setpriv = self.which("setpriv")
        bound = [setpriv, "--pdeathsig", "KILL", "--", *words] if setpriv else list(words)
        said = {"PATH": self.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", **(environ or {})}
        try:
            ended = await process.run(
                bound, environ=said, stdin=stdin, timeout_s=deadline_s, stdout_max=_OUTPUT_MAX, stderr_max=_OUTPUT_MAX
            )
        except CannotExecute as error:
            raise HostError(f"{words[0]} cannot be executed: {error}") from error
        if ended.overdue:
            raise HostError(f"{' '.join(words)} does not end within {deadline_s:g} s")
        return Said(ended.status, ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace"))


def version(text: str, after: str) -> tuple[int, ...] | None:
    """The first number with points in it behind `after` (a regular expression), as numbers: 7.2.22 is (7, 2, 22)."""
    found = re.search(rf"{after}[^\d\n]*(\d+(?:\.\d+)+)", text)
    return tuple(map(int, found[1].split("."))) if found else None


def dotted(numbers: tuple[int, ...]) -> str:
    """The same as people write it."""
    return ".".join(map(str, numbers))
