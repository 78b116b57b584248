"""Network namespaces that a test has made, and had CNI connect: as Kubernetes and `ctr run --cni` do, before Create.

Any runtime's container can join one. The calls of CNI are made in the cell, by cni_client.py with our own library.
"""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.box import Box
from harness.cell import Cell
from harness.cni import Net, run
from harness.flavours import CHECKOUT

CLIENT: Final = CHECKOUT / "tests/vm/cni_client.py"
_DEADLINE_S: Final = 60.0
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Attached:
    """A namespace of the cell. `ip4` and `ip6` are those of its first network; empty where it has none."""

    name: str
    cell: Cell
    ip4: str = ""
    ip6: str = ""

    @property
    def path(self) -> str:
        """As the cell has it."""
        return f"/run/netns/{self.name}"

    @property
    def netns(self) -> Path:
        """As `harness.netns.within` takes it."""
        return self.cell.path(self.path)

    @property
    def options(self) -> tuple[str, str]:
        """For a container that is to join it: words of `ctr run`."""
        return ("--with-ns", f"network:{self.path}")

    def command(self, *command: str) -> tuple[str, ...]:
        """The command that runs `command` in it, for the cell."""
        return ("nsenter", f"--net={self.path}", "--", *command)

    def run(self, *command: str) -> str:
        """What a program that runs in it prints; it must succeed."""
        return run(self.cell, *self.command(*command))


@contextmanager
def namespace(cell: Cell) -> Iterator[Attached]:
    """A namespace with nothing in it but a loopback, which is up."""
    made = Attached(f"test{next(_numbers)}", cell)
    run(cell, "ip", "netns", "add", made.name)
    try:
        made.run("ip", "link", "set", "lo", "up")
        yield made
    finally:
        run(cell, "ip", "netns", "del", made.name)


@contextmanager
def attached(box: Box, *nets: Net, capabilities: Mapping[str, object] | None = None) -> Iterator[Attached]:
    """A namespace that these networks connect, as eth0 and so on; their files must be there (cni.configured)."""
    with namespace(box.containerd.cell) as made:
        done: list[tuple[str, str, str, str]] = []
        addresses: list[str] = []
        try:
            for number, net in enumerate(nets):
                where = (net.name, made.name, f"eth{number}", made.path)
                done.append(where)
                addresses += call(box, "add", *where, json.dumps(capabilities or {})).split()
            ip4, ip6 = ([one for one in addresses if (":" in one) is wanted] for wanted in (False, True))
            yield Attached(made.name, made.cell, (ip4 or [""])[0], (ip6 or [""])[0])
        finally:
            for where in reversed(done):
                call(box, "del", *where)


def call(box: Box, *words: str) -> str:
    """What cni_client.py prints; it must succeed."""
    cell = box.containerd.cell
    done = subprocess.run(
        cell.inside([sys.executable, str(CLIENT), str(box.qemubox.conf_dir), str(cell.directory), *words]),
        check=False,
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
    )
    assert done.returncode == 0, f"cni_client.py {' '.join(words)}: {done.stderr}"
    return done.stdout
