"""docs/big-guest.md, line by line: a Debian with systemd and Docker in a container, from its recipe to its end.

The page's own commands are run by a shell, in a directory that looks like the checkout; what ctr and the shim are, the
test says by its environment. Only the console is the test's to read: the page leaves the reader there.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from harness.box import Box
from harness.flavours import CHECKOUT
from harness.terminal import terminal

# Once the image is there the test takes a minute and a half, on a very busy machine seven; making it takes three.
pytestmark = [pytest.mark.on("2"), pytest.mark.timeout(1500)]

_PAGE: Final = CHECKOUT / "docs/big-guest.md"
_MAKING_DEADLINE_S: Final = 900.0
_BOOT_DEADLINE_S: Final = 240.0
# For what is typed, and for Docker: each call of it is a program of 50 MiB that an emulated machine has to translate.
_DEADLINE_S: Final = 90.0
_DOCKER_DEADLINE_S: Final = 240.0
# A unit may take 20 s before systemd kills it; none of ours does.
_STOP_DEADLINE_S: Final = 60.0
_IMAGES: Final = ("localhost/qemubox/debian:12", "localhost/qemubox/debian:mine", "localhost/qemubox/inner:1")


def _commands() -> dict[str, str]:
    """The page's blocks of shell, by the headings above them; those below one heading together."""
    found: dict[str, str] = {}
    for section in re.split(r"^## ", _PAGE.read_text(), flags=re.MULTILINE)[1:]:
        heading, _, text = section.partition("\n")
        found[heading] = "".join(re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    return {heading: commands for heading, commands in found.items() if commands}


class Reader:
    """Somebody who does what the page says."""

    def __init__(self, box: Box, directory: Path) -> None:
        self._box = box
        self._directory = directory
        self._commands = _commands()
        self._done: list[str] = []

    def command(self, heading: str) -> list[str]:
        """The shell that runs the commands below a heading, in the test's cell."""
        self._done.append(heading)
        script = self._commands[heading]
        return self._box.containerd.cell.inside(["sh", "-euc", script], self._directory)

    @property
    def environment(self) -> dict[str, str]:
        containerd = self._box.containerd
        path = f"{containerd.flavour.ctr.parent}:{containerd.qemubox.bin}:{os.environ['PATH']}"
        quiet = {"CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS": "1"}
        return {**os.environ, **containerd.qemubox.environment, **quiet, "PATH": path}

    def do(self, heading: str, deadline_s: float) -> str:
        """Run them on a terminal, which `ctr run -t` insists on; what they said. They must succeed."""
        with terminal(24, 80) as keyboard:
            done = subprocess.run(
                self.command(heading),
                check=False,
                stdin=keyboard.theirs,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self.environment,
                timeout=deadline_s,
            )
        said = done.stdout.decode(errors="replace")
        assert done.returncode == 0, f"{heading}: {done.returncode}: {said}"
        return said

    def assert_all_done(self) -> None:
        assert self._done == [*self._commands], "the page has commands that nobody runs, or in another order"


@pytest.fixture
def reader(vm: Box) -> Iterator[Reader]:
    """A directory with the checkout's parts that the page names; the images go at the end."""
    directory = vm.containerd.cell.directory / "big-guest"
    directory.mkdir()
    (directory / "deploy").symlink_to(CHECKOUT / "deploy")
    yield Reader(vm, directory)
    vm.remove_all()
    for image in _IMAGES:
        vm.containerd.ctr("images", "rm", "--sync", image)
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()


def test_the_page_s_commands(vm: Box, reader: Reader) -> None:
    reader.do("The image", _MAKING_DEADLINE_S)
    reader.do("Running it", _BOOT_DEADLINE_S)
    up = reader.do("Waiting for it", _BOOT_DEADLINE_S)
    assert "running" in up.splitlines()
    assert "0 loaded units listed" in up
    _log_in(reader)
    assert reader.do("Docker inside", _DOCKER_DEADLINE_S).splitlines()[-1] == "hello from the inside"
    assert _shell(vm, "docker info --format '{{ .Driver }}'") == "overlay2"
    reader.do("Keeping it", _DEADLINE_S)
    began = time.monotonic()
    reader.do("Stopping it", _STOP_DEADLINE_S)
    assert time.monotonic() - began < _STOP_DEADLINE_S
    said = vm.run("cat", "/root/note", image="localhost/qemubox/debian:mine").checked().text
    assert said == "mine"
    reader.assert_all_done()


def _shell(box: Box, script: str) -> str:
    """What a script in the guest says."""
    words = ("tasks", "exec", "--exec-id", box.new_id(), "big", "sh", "-c", script)
    return box.containerd.ctr(*words, deadline_s=_DEADLINE_S).checked().text


def _log_in(reader: Reader) -> None:
    """By user and password, on the console; the user may become root."""
    with (
        terminal(24, 80) as console,
        subprocess.Popen(
            reader.command("Logging in"),
            stdin=console.theirs,
            stdout=console.theirs,
            stderr=subprocess.PIPE,
            env=reader.environment,
            start_new_session=True,
        ) as shell,
    ):
        try:
            # The first "login:" may have been shown before anybody looked.
            console.read_until("login: ", _DEADLINE_S, again=lambda: console.type(b"\r"))
            console.type(b"qemubox\r")
            console.read_until("Password: ", _DEADLINE_S)
            console.type(b"qemubox\r")
            console.read_until("$ ", _DEADLINE_S)
            # What is typed is shown as well; only what is said has these words in one piece.
            console.type(b'echo I am "$(id -un)" on "$(tty)"\r')
            console.read_until("I am qemubox on /dev/console", _DEADLINE_S)
            console.type(b"sudo id\r")
            console.read_until("password for qemubox: ", _DEADLINE_S)
            console.type(b"qemubox\r")
            console.read_until("uid=0(root)", _DEADLINE_S)
            console.type(b"exit\r")
        finally:
            # A ctr that is attached at the machine's end deletes its task: it must be gone, and not its shell alone.
            os.killpg(shell.pid, signal.SIGKILL)
