"""One host of containers as its administrator uses it: the machine, the way qemubox is installed on it, and ctr."""

import json
import re
import shlex
from dataclasses import dataclass, field
from typing import Final, cast

from tests.kvm.harness.machine import Machine
from tests.kvm.harness.shell import Result
from tests.kvm.harness.times import Times

RUNTIME: Final = "io.containerd.qemubox.v1"
PREFIX: Final = "/usr/share/qemubox"
IMAGE: Final = "localhost/kvm/busybox:1"
# The file system of the disk with the releases and the image, and where it is mounted.
LABEL: Final = "lane-data"
DATA: Final = "/mnt"
# A container starts in 2 s under emulated KVM when nothing else runs, and in 20 on a machine that others use, too.
CONTAINER_DEADLINE_S: Final = 180.0
CALL_DEADLINE_S: Final = 90.0

Document = dict[str, object]


@dataclass(frozen=True, slots=True)
class Suite:
    """A Debian, and how qemubox comes onto it."""

    name: str
    # machine.sh's second word.
    kind: str
    shim_only: bool
    # What `qemubox check` says of the QEMU that runs the machines begins with this.
    qemu: str

    @property
    def options(self) -> str:
        """What install.sh is called with."""
        return "--shim-only" if self.shim_only else ""

    @property
    def containerd(self) -> str:
        """The unit of the containerd that is used."""
        return "containerd.service" if self.shim_only else "qemubox-containerd.service"

    @property
    def socket(self) -> str:
        """Its socket."""
        return "/run/containerd/containerd.sock" if self.shim_only else "/run/qemubox/containerd.sock"

    @property
    def ctr(self) -> str:
        """Its client, with its address."""
        return "ctr" if self.shim_only else f"{PREFIX}/bin/ctr --address {self.socket}"


@dataclass(slots=True)
class Host:
    """The machine of one suite. What one step leaves for later ones is in `kept`."""

    suite: Suite
    machine: Machine
    times: Times
    kept: dict[str, str] = field(default_factory=dict)

    def run(self, command: str, deadline_s: float = CALL_DEADLINE_S, *, check: bool = True) -> Result:
        """A command as root; see Machine.run."""
        return self.machine.run(command, deadline_s, check=check)

    def output(self, command: str, deadline_s: float = CALL_DEADLINE_S) -> str:
        """What it prints, without the last newline."""
        return self.machine.output(command, deadline_s)

    def ctr(self, words: str, deadline_s: float = CALL_DEADLINE_S, *, check: bool = True) -> Result:
        """A call of containerd's client."""
        return self.run(f"{self.suite.ctr} {words}", deadline_s, check=check)

    def mount_data(self) -> None:
        """After each boot. Its disk has a driver that is loaded by then, or a moment later."""
        self.run(f"udevadm settle --timeout=60 && mount -o ro LABEL={LABEL} {DATA}")

    def start(self, name: str, command: str = "sleep 100000", *, image: str = IMAGE, options: str = "") -> Result:
        """Have a container run in the background."""
        return self.ctr(f"run -d --runtime {RUNTIME} {options} {image} {name} {command}", CONTAINER_DEADLINE_S)

    def run_container(self, name: str, command: str, *, image: str = IMAGE, options: str = "") -> str:
        """Run a container to its end, which must be a success; the answer is what it printed."""
        words = f"run --rm --runtime {RUNTIME} {options} {image} {name} {command}"
        return self.ctr(words, CONTAINER_DEADLINE_S).stdout.strip()

    def exec(self, name: str, command: str) -> str:
        """What a command in a running container prints."""
        self.kept["exec"] = str(int(self.kept.get("exec", "0")) + 1)
        return self.ctr(f"task exec --exec-id e{self.kept['exec']} {name} {command}").stdout.strip()

    def remove(self, name: str) -> None:
        """Kill a container and remove it. A task that has not been deleted keeps its container from being removed."""
        self.run(f"{self.suite.ctr} task rm --force {name}; {self.suite.ctr} container rm {name}")

    def wait_until_stopped(self, name: str) -> None:
        """Until containerd knows that a container has ended."""
        self.wait_for(f"{self.suite.ctr} task ls | grep -Eq '^{name} .*STOPPED'", f"the end of {name}")

    def wait_for(self, condition: str, what: str, deadline_s: int = 60) -> None:
        """Wait until a shell command succeeds in the machine. `what`: for the error."""
        clock = f"end=$(($(date +%s) + {deadline_s}))"
        loop = f"{clock}; until {condition}; do [ $(date +%s) -lt $end ] || exit 9; sleep 1; done"
        done = self.run(f"sh -c {shlex.quote(loop)}", deadline_s + 30, check=False)
        assert done.status == 0, f"{what}: not there after {deadline_s} s: {condition}\n{done.stdout}{done.stderr}"

    def inspect(self, name: str) -> Document:
        """What `qemubox inspect` says of a container's machine."""
        document = json.loads(self.output(f"qemubox inspect {name}"))
        return cast("Document", document[0] if isinstance(document, list) else document)

    def address(self, name: str) -> str:
        """The IPv4 address of a container's eth0."""
        found = re.search(r"inet (\d+\.\d+\.\d+\.\d+)/", self.exec(name, "ip -4 address show dev eth0"))
        assert found, f"{name} has no address"
        return found[1]

    def failed_units(self) -> str:
        """The units that have failed, a line each."""
        return self.output("systemctl list-units --failed --plain --no-legend")
