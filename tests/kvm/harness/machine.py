"""A Debian machine with systemd, real /dev/kvm, /dev/vhost-vsock and vhost-net, under QEMU's TCG.

TCG emulates AMD's SVM, so `kvm_amd` loads in it (`-cpu max,+svm,+npt`). QEMU is the release's, 10.0. One vCPU, for two
of them have hung in an interrupt between them, and no ERMS, which TCG does byte by byte (docs/decisions/0036). The disk
is machine.sh's, and what is written to it goes with QEMU (`snapshot=on`): a reboot keeps it, the next run does not see
it. It is the only one of its kind: of two NVMe disks Linux calls now the one and now the other nvme0n1.

The machine has no network but QEMU's own, restricted to what the harness forwards: ssh, for commands with their output
and status, and for real terminals. It says on its console when that is ready. QEMU is killed by its pid at the end of
the `with`, and by the kernel if this process dies.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.kvm.harness.shell import Result, Shell
from tests.kvm.harness.terminal import Terminal

VCPUS: Final = 1
MEMORY_MIB: Final = 4096
READY: Final = "lane: ready after"
_PANIC: Final = "Kernel panic"
# A boot takes 15 s on two idle cores, and a minute on two that eight people share.
BOOT_DEADLINE_S: Final = 240.0
_OFF_DEADLINE_S: Final = 60.0
_QMP_DEADLINE_S: Final = 20.0
_TAIL_LINES: Final = 40
# The kernel takes TCG's TSC for unstable when the host is busy, and HPET is a call into QEMU for each look at a clock.
_KERNEL: Final = (
    "console=ttyS0 root=/dev/nvme0n1 rw net.ifnames=0 loglevel=5 mitigations=off tsc=reliable clocksource=tsc "
    "systemd.show_status=auto"
)


class MachineFailed(Exception):
    """The machine did not do what was asked of it; with the end of its console."""


class Machine:
    """One running machine: `with Machine(qemu, directory, data, work) as machine`."""

    def __init__(self, qemu: Path, directory: Path, data: Path, work: Path) -> None:
        """`directory` is machine.sh's, `data` a disk image with what the machine is given, `work` for what is made."""
        self._qemu = qemu
        self._directory = directory
        self._data = data
        self.console = work / "console.log"
        self._stderr = work / "qemu.log"
        self._monitor = work / "qmp.sock"
        self._work = work
        self._process: subprocess.Popen[bytes] | None = None
        self._boots = 0
        self.shell: Shell

    def __enter__(self) -> Self:
        key = self._work / "id"
        key.write_bytes((self._directory / "id").read_bytes())  # ssh wants it to be this user's alone
        key.chmod(0o600)
        port = _free_port()
        with self._stderr.open("wb") as stderr:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", str(self._qemu), *self._arguments(port)],
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
            )
        self.shell = Shell(port, key, self._work / "ssh")
        try:
            self._wait_until_ready()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shell.close()
        self._kill()

    def _arguments(self, port: int) -> list[str]:
        disk = "if=none,format=raw,snapshot=on,cache=unsafe"
        return [
            "-nodefaults", "-no-user-config", "-display", "none",
            "-machine", "q35,vmport=off,smbus=off,sata=off,usb=off,hpet=off",
            "-accel", "tcg,thread=single,tb-size=512",
            "-cpu", "max,+svm,+npt,-erms,-fsrm,-la57",
            "-smp", str(VCPUS), "-m", str(MEMORY_MIB),
            "-kernel", str(self._directory / "vmlinuz"), "-append", _KERNEL,
            "-drive", f"{disk},id=root,file={self._directory / 'root.img'}", "-device", "nvme,drive=root,serial=root",
            "-drive", f"if=none,format=raw,readonly=on,id=data,file={self._data}",
            "-device", "virtio-blk-pci,drive=data,serial=data",
            "-netdev", f"user,id=lan,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:{port}-:22",
            "-device", "virtio-net-pci,netdev=lan,romfile=",
            "-device", "virtio-rng-pci",
            "-serial", f"file:{self.console}",
            "-qmp", f"unix:{self._monitor},server=on,wait=off",
        ]  # fmt: skip

    def run(self, command: str, deadline_s: float = 60.0, *, check: bool = True) -> Result:
        """Run a shell command as root; raises CommandFailed for another status than 0 unless `check` is false."""
        return self.shell.run(command, deadline_s, check=check)

    def output(self, command: str, deadline_s: float = 60.0) -> str:
        """What a command prints, without the last newline."""
        return self.run(command, deadline_s).stdout.rstrip("\n")

    @contextlib.contextmanager
    def terminal(self, command: str) -> Iterator[Terminal]:
        """Run a command on a terminal of its own in the machine, as `ssh -t` does."""
        with Terminal(self.shell.words("-tt", command=command)) as terminal:
            yield terminal

    def reboot(self) -> float:
        """Have systemd reboot it, as an administrator would; the answer is how many seconds that took."""
        begun = time.monotonic()
        self.run("systemctl --no-block reboot", check=False)
        self._boots += 1
        self._wait_until_ready()
        return time.monotonic() - begun

    def lose_power(self) -> float:
        """Reset it in the middle of what it does; what was not written to its disk by then is lost."""
        begun = time.monotonic()
        self.run("sync")
        self._command("system_reset")
        self._boots += 1
        self._wait_until_ready()
        return time.monotonic() - begun

    def power_off(self) -> None:
        """Have systemd power it off. Raises MachineFailed where that takes too long."""
        self.run("systemctl --no-block poweroff", check=False)
        assert self._process is not None
        try:
            self._process.wait(_OFF_DEADLINE_S)
        except subprocess.TimeoutExpired:
            raise self._failure(f"has not powered off in {_OFF_DEADLINE_S:g} s") from None

    def _wait_until_ready(self) -> None:
        """Until it has said so once more than it has before; its console is only ever appended to."""
        self.shell.close()
        end = time.monotonic() + BOOT_DEADLINE_S
        while time.monotonic() < end:
            assert self._process is not None
            if self._process.poll() is not None:
                raise self._failure(f"QEMU has ended with {self._process.returncode}: {self._stderr.read_text()}")
            words = self._words()
            if _PANIC in words:
                raise self._failure("has panicked")
            if words.count(READY) > self._boots:
                self.shell.open(end - time.monotonic())
                return
            time.sleep(0.1)
        raise self._failure(f"is not ready after {BOOT_DEADLINE_S:g} s")

    def _command(self, name: str) -> None:
        """One call to QEMU's monitor (QMP)."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(_QMP_DEADLINE_S)
            monitor.connect(str(self._monitor))
            with monitor.makefile("rw") as lines:
                lines.readline()
                for call in ("qmp_capabilities", name):
                    lines.write(json.dumps({"execute": call}) + "\n")
                    lines.flush()
                    answer = json.loads(lines.readline())
                    if "return" not in answer:
                        raise self._failure(f"QEMU does not do {call}: {answer}")

    def _words(self) -> str:
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def _failure(self, what: str) -> MachineFailed:
        tail = "\n".join(self._words().splitlines()[-_TAIL_LINES:])
        return MachineFailed(f"the machine {what}; the end of its console ({self.console}):\n{tail}")

    def _kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait(_OFF_DEADLINE_S)


def _free_port() -> int:
    """A TCP port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
