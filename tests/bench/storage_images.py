"""The images that the benchmark of storage runs.

TOOLS  busybox, io.c, this host's git, and a repository to clone: this checkout's own, as a bare one
APT    Debian 13's minbase, about 100 MB, with packages to install in /srv
"""

import subprocess
import tempfile
from pathlib import Path
from typing import Final

from deploy.image import Entry, busybox_layer, directory, file, symlink, write_archive
from harness.flavours import CHECKOUT, output_of
from harness.images import programs_layer

TOOLS: Final = "localhost/qemubox/bench-tools:1"
APT: Final = "localhost/qemubox/bench-apt:1"
# An exec has no HOME; the repository belongs to root, as does whoever clones it.
CLONE_COMMAND: Final = "export HOME=/ GIT_CONFIG_NOSYSTEM=1; exec git clone -q --no-local /repository.git /clone"
APT_COMMAND: Final = (
    "export DEBIAN_FRONTEND=noninteractive; exec apt-get -qq install -y --no-install-recommends /srv/*.deb"
)
_SUITE: Final = "trixie"
_PACKAGES: Final = ("vim", "vim-common", "vim-runtime", "libgpm2", "libsodium23")
_DEADLINE_S: Final = 900.0


def tools_archive(directory_: Path) -> Path:
    """TOOLS as a tar file in `directory_`. Raises MissingPart, CalledProcessError."""
    out = directory_ / "tools.tar"
    ours = [file("bin/io", _io(), 0o755), symlink("bin/git-upload-pack", "git")]
    layers = [busybox_layer(), programs_layer([Path("/usr/bin/git")]), ours, _repository()]
    write_archive(out, TOOLS, layers)
    return out


def apt_archive(directory_: Path) -> Path:
    """APT as a tar file in `directory_`. Raises MissingPart, CalledProcessError."""
    out = directory_ / "apt.tar"
    system = Path(output_of([CHECKOUT / "tests" / "distro.sh", _SUITE], _DEADLINE_S)).read_bytes()
    debs = Path(output_of([CHECKOUT / "deploy" / "suite.sh", _SUITE, *_PACKAGES], _DEADLINE_S))
    packages = [directory("srv"), *(file(f"srv/{deb.name}", deb.read_bytes()) for deb in sorted(debs.glob("*.deb")))]
    write_archive(out, APT, [system, packages])
    return out


def _io() -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch, "io")
        options = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", "-static", "-s"]
        subprocess.run(
            ["gcc", *options, "-o", program, Path(__file__).with_name("io.c")], check=True, timeout=_DEADLINE_S
        )
        return program.read_bytes()


def _repository() -> list[Entry]:
    with tempfile.TemporaryDirectory() as scratch:
        bare = Path(scratch, "repository.git")
        subprocess.run(["git", "clone", "-q", "--bare", "--no-local", CHECKOUT, bare], check=True, timeout=_DEADLINE_S)
        paths = [path for path in sorted(bare.rglob("*")) if "hooks" not in path.parts]
        names = {path: str(path.relative_to(scratch)) for path in paths}
        return [
            directory(bare.name),
            *(directory(names[path]) if path.is_dir() else file(names[path], path.read_bytes()) for path in paths),
        ]
