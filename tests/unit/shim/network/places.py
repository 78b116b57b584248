"""Network namespaces of a test's own, and what iproute2 says of them: another reader than ours."""

import contextlib
import ctypes
import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from shim.network import netns

_libc: Final = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH: Final = 2


class Place:
    """A network namespace by its path and an open file."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd

    def run(self, *words: str, status: int = 0) -> str:
        """Run a program in it; what it writes."""
        command = ["/usr/bin/nsenter", f"--net={self.path}", "--", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
        assert done.returncode == status, (words, done.stdout, done.stderr)
        return done.stdout

    def ip(self, command: str) -> str:
        """`ip COMMAND`, at the blanks parted."""
        return self.run("/usr/sbin/ip", *command.split())

    def script(self, *commands: str) -> None:
        """Several of `ip` at once."""
        words = ["/usr/bin/nsenter", f"--net={self.path}", "--", "/usr/sbin/ip", "-batch", "-"]
        text = "\n".join(commands)
        done = subprocess.run(words, capture_output=True, text=True, check=False, input=text, timeout=20)
        assert done.returncode == 0, (commands, done.stderr)

    def json(self, command: str) -> list[dict[str, object]]:
        """`ip -json COMMAND`."""
        found = json.loads(self.run("/usr/sbin/ip", "-json", "-details", *command.split()) or "[]")
        assert isinstance(found, list)
        return found

    def tc(self, command: str) -> str:
        """`tc COMMAND`."""
        return self.run("/usr/sbin/tc", *command.split())

    def names(self) -> list[str]:
        """Its interfaces that are up."""
        return [str(link["ifname"]) for link in self.json("link show up")]


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """A directory for namespaces, which becomes a mount of its own, as /run/netns is."""
    path = Path(f"/run/qemubox-test-{secrets.token_hex(6)}")
    path.mkdir()
    try:
        yield path
    finally:
        for each in path.iterdir():
            unmount(each)
            each.unlink()
        unmount(path)
        path.rmdir()


@contextlib.contextmanager
def place(parent: Path, name: str) -> Iterator[Place]:
    """A namespace that is gone at the end, with all that is in it."""
    fd = netns.make(parent / name)
    try:
        yield Place(parent / name, fd)
    finally:
        os.close(fd)
        unmount(parent / name)
        (parent / name).unlink()


def unmount(path: Path) -> None:
    """All that is mounted on it."""
    while _libc.umount2(os.fsencode(path), _MNT_DETACH) == 0:
        pass


def is_mounted(path: Path) -> bool:
    """Whether something is mounted on it."""
    return any(line.split()[4] == str(path) for line in Path("/proc/self/mountinfo").read_text().splitlines())
