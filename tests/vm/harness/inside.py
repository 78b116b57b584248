"""A container that runs what a test tells it, one line of shell after the other."""

import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from harness.box import Box
from harness.images import BUSYBOX

CGROUP: Final = "/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)"
"""The container's own, for a line of shell in a machine."""

_DEADLINE_S: Final = 60.0
# Runs one line after the other and says how each ended.
_OBEY: Final = 'echo "ended 0"; while read -r line; do eval "$line"; echo "ended $?"; done'
_SEE_CGROUP: Final = ("--mount", "type=cgroup,src=cgroup,dst=/sys/fs/cgroup,options=ro:nosuid:noexec:nodev")


class Inside:
    """A container that does what it is told."""

    def __init__(self, box: Box, container: str, ctr: "subprocess.Popen[bytes]") -> None:
        self.box = box
        self.container = container
        self._ctr = ctr

    def do(self, line: str) -> tuple[int, str]:
        """Run a line; its status and what it said."""
        assert self._ctr.stdin is not None
        self._ctr.stdin.write(line.encode() + b"\n")
        return self.answer()

    def answer(self) -> tuple[int, str]:
        assert self._ctr.stdout is not None
        end, said = time.monotonic() + _DEADLINE_S, b""
        while not (said.endswith(b"\n") and said.splitlines()[-1].startswith(b"ended ")):
            readable, _, _ = select.select([self._ctr.stdout], [], [], max(0.0, end - time.monotonic()))
            assert readable, f"no answer within {_DEADLINE_S:g} s: {said!r}"
            piece = self._ctr.stdout.read(65536)
            assert piece, f"the container has ended: {said!r}"
            said += piece
        text, _, status = said.decode().rpartition("ended ")
        return int(status), text.strip()

    def number(self, line: str) -> int:
        """The number that a line prints."""
        return int(self.text(line))

    def text(self, line: str) -> str:
        """What a line prints; it must succeed."""
        status, text = self.do(line)
        assert status == 0, f"{line}: {status}: {text}"
        return text

    @property
    def total_mib(self) -> int:
        return self.number("free -m | awk '/^Mem:/ { print $2 }'")

    @property
    def cpus(self) -> int:
        return self.number("grep -c ^processor /proc/cpuinfo")

    def update(self, **resources: object) -> None:
        self.box.containerd.update(self.container, resources).checked()


@contextmanager
def inside(box: Box, *options: str, image: str = BUSYBOX, container: str = "") -> Iterator[Inside]:
    """A running container."""
    container = container or box.new_id()
    arguments = box.run_arguments(container, ["sh", "-c", _OBEY], ["--rm", *_SEE_CGROUP, *options], image)
    with box.containerd.running(arguments, stdin=subprocess.PIPE) as ctr:
        made = Inside(box, container, ctr)
        made.answer()
        yield made
        assert ctr.stdin is not None
        ctr.stdin.close()
        assert ctr.wait(_DEADLINE_S) == 0
