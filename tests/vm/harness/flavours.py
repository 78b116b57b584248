"""The containerds that the tests run on.

Debian's own package, and the newest 2.x, which `tests/parts.sh` builds. A part that is
not there fails the tests that need it, and says which and how to get it.
"""

import functools
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parents[3]
_PARTS_DEADLINE_S: Final = 1800.0


class MissingPart(Exception):
    """A program that the tests need is not on this machine."""


@dataclass(frozen=True)
class Flavour:
    """One containerd: where its programs are, and how its configuration looks."""

    name: str
    containerd: Path
    ctr: Path
    config_version: int
    # The directory of the containerd-shim-runc-v2 that belongs to it.
    shims: Path

    @property
    def erofs_snapshotter(self) -> bool:
        """Whether it has the erofs snapshotter with block mode (containerd 2.2 and newer)."""
        return self.config_version >= 3

    def config(self, root: Path) -> str:
        """Its configuration file: what persists is below `root`, no CRI, state and socket where they always are."""
        lines = [
            f"version = {self.config_version}",
            f'root = "{root}"',
            'state = "/run/containerd"',
            f"disabled_plugins = {list(_CRI[self.config_version])}",
            "[grpc]",
            'address = "/run/containerd/containerd.sock"',
        ]
        if self.erofs_snapshotter:
            lines += _EROFS.splitlines()
            lines += ["[plugins.'io.containerd.snapshotter.v1.blockfile']", f'scratch_file = "{scratch_file(root)}"']
            lines += ['fs_type = "ext4"', 'mount_options = ["loop"]']
        return "\n".join(lines) + "\n"


_CRI: Final = {
    2: ("io.containerd.grpc.v1.cri",),
    3: ("io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"),
}
# Block mode: a writable layer is an ext4 file. The walking differ, as the erofs differ wants
# a mkfs.erofs newer than Debian 12's 1.5 (it has no --tar).
_EROFS: Final = """
[plugins.'io.containerd.snapshotter.v1.erofs']
default_size = "256M"
[plugins.'io.containerd.transfer.v1.local']
unpack_config = [
  {platform="linux/amd64", snapshotter="overlayfs", differ="walking"},
  {platform="linux/amd64", snapshotter="erofs", differ="walking"},
  {platform="linux/amd64", snapshotter="native", differ="walking"},
  {platform="linux/amd64", snapshotter="blockfile", differ="walking"},
]
"""


def scratch_file(root: Path) -> Path:
    """The empty ext4 that the blockfile snapshotter copies, whole, for each snapshot: small, and made by the caller."""
    return root.with_name("scratch.ext4")


FLAVOUR_NAMES: Final = ("1.6", "2")


@functools.cache
def flavour(name: str) -> Flavour:
    """The containerd of that name. Raises MissingPart."""
    if name == "1.6":
        return Flavour("1.6", _program("/usr/bin/containerd"), _program("/usr/bin/ctr"), 2, Path("/usr/bin"))
    parts = parts_directory()
    for program in ("containerd", "ctr", "containerd-shim-runc-v2"):
        _program(parts / program)
    return Flavour("2", parts / "containerd", parts / "ctr", 3, parts)


@functools.cache
def parts_directory() -> Path:
    """Where `tests/parts.sh` has put what no package gives; it builds only what is not there."""
    script = CHECKOUT / "tests" / "parts.sh"
    return Path(output_of([script], _PARTS_DEADLINE_S))


def output_of(command: list[str | Path], deadline_s: float) -> str:
    """The last line that a script of ours prints. Raises MissingPart with what it said."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=deadline_s, cwd=CHECKOUT)
    except FileNotFoundError as error:
        raise MissingPart(f"{command[0]} is not there") from error
    if done.returncode != 0 or not done.stdout.strip():
        tail = "\n".join(done.stderr.splitlines()[-20:])
        raise MissingPart(f"{' '.join(map(str, command))} failed with status {done.returncode}:\n{tail}")
    return done.stdout.strip().splitlines()[-1]


def _program(name: str | Path) -> Path:
    found = shutil.which(name)
    if found is None:
        raise MissingPart(f"{name} is not there: run ./test.sh, which installs what the tests need")
    return Path(found)
