"""Distributions as images, made here: systems that have a package manager, in several layers.

DEBIAN   Debian 12's minbase: apt and dpkg, files in /usr/bin and links to them
NEWER    the minbase of Debian 13, with packages compressed by zstd, as Ubuntu's are. It stands for Ubuntu, of which no
         part can be made from what Debian's mirrors have; what it has in common with it is apt, dpkg and that layout.
BUSYBOX  one static busybox, whose own dpkg installs. It stands for Alpine: one small program for everything, no libc of
         GNU's; apk itself is not in it.

Upon the system of each lie a layer with a package in a repository of files, and things for the test to change; and one
more that takes away and replaces some of these. Every system has PROGRAM, which lists all inodes (lister.c).
"""

import functools
import gzip
import hashlib
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.image import Entry, busybox_layer, directory, file, symlink, whiteout, write_archive
from harness.flavours import CHECKOUT, output_of

PROGRAM: Final = "/usr/local/bin/lister"
PACKAGE: Final = "qemubox-hello"
_REPOSITORY: Final = "srv/repository"
_DEB: Final = f"{PACKAGE}_1.0_all.deb"
_MAKE_DEADLINE_S: Final = 900.0
_TOOL_DEADLINE_S: Final = 120.0


@dataclass(frozen=True)
class Distro:
    """A system. `suite` is Debian's, or empty; `install` is what installs the package, for a shell inside."""

    name: str
    suite: str
    compression: str
    install: str

    @property
    def image(self) -> str:
        return f"localhost/qemubox/{self.name}:1"


_APT: Final = f"export DEBIAN_FRONTEND=noninteractive; apt-get -q update && apt-get -q install -y {PACKAGE}"
DEBIAN: Final = Distro("debian", "bookworm", "xz", _APT)
NEWER: Final = Distro("newer-debian", "trixie", "zstd", _APT)
BUSYBOX: Final = Distro("busybox-dpkg", "", "gzip", f"dpkg -i /{_REPOSITORY}/{_DEB}")
DISTROS: Final = (DEBIAN, NEWER, BUSYBOX)

_CONTROL: Final = f"""Package: {PACKAGE}
Version: 1.0
Architecture: all
Maintainer: the tests <tests@localhost>
Description: what a test installs
"""
# Installed by any of the three: a program, a configuration file, links, and what a script of the package's makes.
_SCRIPT: Final = f"#!/bin/sh\nset -e\nmkdir -p /var/lib/{PACKAGE}\necho configured >/var/lib/{PACKAGE}/state\n"


def archive(distro: Distro, directory_: Path) -> Path:
    """The image as a tar file in `directory_`, made if it is not there. Raises MissingPart."""
    out = directory_ / f"{distro.name}.tar"
    if not out.exists():
        write_archive(out, distro.image, [_system(distro), _middle(distro), _top()])
    return out


def _system(distro: Distro) -> list[Entry] | bytes:
    if distro.suite:
        return Path(output_of([CHECKOUT / "tests" / "distro.sh", distro.suite], _MAKE_DEADLINE_S)).read_bytes()
    empty = [directory(f"var/lib/{name}") for name in ("", "dpkg", "dpkg/info")]
    places = [directory(name) for name in ("opt", "srv", "usr", "usr/bin", "usr/local", "usr/local/bin", "usr/share")]
    return [*busybox_layer(), *empty, *places, file("var/lib/dpkg/status", b"")]


def _middle(distro: Distro) -> list[Entry]:
    """The package, the lister, and what the test changes."""
    deb = _package(distro.compression)
    told = f"{_CONTROL}Filename: ./{_DEB}\nSize: {len(deb)}\nSHA256: {hashlib.sha256(deb).hexdigest()}\n"
    entries = [
        directory(_REPOSITORY),
        file(f"{_REPOSITORY}/{_DEB}", deb),
        file(f"{_REPOSITORY}/Packages.gz", gzip.compress(told.encode(), mtime=0)),
        file(PROGRAM[1:], lister(), 0o755),
        directory("opt/opaque"),
        file("opt/opaque/hidden", b"hidden\n"),
        directory("opt/renamed"),
        directory("opt/renamed/below"),
        file("opt/renamed/below/file", b"goes with its directory\n"),
        directory("opt/was-directory"),
        file("opt/was-directory/file", b""),
        directory("opt/removed-by-a-layer"),
        file("opt/replaced-by-a-layer", b"first\n"),
        *(
            file(f"opt/{name}", name.encode())
            for name in ("removed", "moved", "owned", "modes", "was-file", "appended")
        ),
    ]
    if distro.suite:
        entries.append(file("etc/apt/sources.list", f"deb [trusted=yes] file:///{_REPOSITORY} ./\n".encode()))
    return entries


def _top() -> list[Entry]:
    return [
        whiteout("opt/removed-by-a-layer"),
        file("opt/replaced-by-a-layer", b"second\n", 0o640),
        symlink("opt/link", "replaced-by-a-layer"),
    ]


@functools.cache
def lister() -> bytes:
    """lister.c as a program of its own. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch, "lister")
        options = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", "-static", "-s"]
        source = Path(__file__).with_name("lister.c")
        subprocess.run(["gcc", *options, "-o", program, source], check=True, timeout=_TOOL_DEADLINE_S)
        return program.read_bytes()


@functools.cache
def _package(compression: str) -> bytes:
    """A .deb, by the host's dpkg-deb."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "root")
        contents = {
            "DEBIAN/control": _CONTROL,
            "DEBIAN/conffiles": f"/etc/{PACKAGE}.conf\n",
            "DEBIAN/postinst": _SCRIPT,
            f"etc/{PACKAGE}.conf": "greeting = hello\n",
            f"usr/bin/{PACKAGE}": f"#!/bin/sh\nexec cat /etc/{PACKAGE}.conf\n",
            f"usr/share/{PACKAGE}/data": "0123456789abcdef" * 4096,
        }
        for name, text in contents.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755 if text.startswith("#!") else 0o644)
            path.parent.chmod(0o755)
        (root / f"usr/share/{PACKAGE}/link").symlink_to("data")
        deb = Path(scratch, _DEB)
        command = ["dpkg-deb", "--root-owner-group", f"-Z{compression}", "--build", str(root), str(deb)]
        subprocess.run(command, check=True, capture_output=True, timeout=_TOOL_DEADLINE_S)
        return deb.read_bytes()
