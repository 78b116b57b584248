"""A running containerd in a cell, and `ctr` for it."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from harness.cell import Cell
from harness.deadline import PATIENCE, eventually
from harness.flavours import CHECKOUT, Flavour, scratch_file
from harness.images import archive
from harness.qemubox import Qemubox
from harness.service import Service

ADDRESS: Final = "/run/containerd/containerd.sock"
_START_DEADLINE_S: Final = 30.0
_STOP_DEADLINE_S: Final = 20.0
_CALL_DEADLINE_S: Final = 120.0
_SCRATCH_BYTES: Final = 16 << 20
_SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Result:
    """How a `ctr` command ended and what it said."""

    command: tuple[str, ...]
    code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text, white space at its ends taken off."""
        return self.stdout.decode(errors="replace").strip()

    @property
    def error(self) -> str:
        """Standard error as text, white space at its ends taken off."""
        return self.stderr.decode(errors="replace").strip()

    def checked(self) -> "Result":
        """Itself, after making sure that the command succeeded."""
        assert self.code == 0, f"{' '.join(self.command)} failed with {self.code}: {self.error or self.text}"
        return self


class Containerd:
    """One containerd. Start it, `ctr` it, stop it, start it again."""

    def __init__(self, flavour: Flavour, cell: Cell, qemubox: Qemubox, archives: Path) -> None:
        self.flavour = flavour
        self.cell = cell
        self.qemubox = qemubox
        self.log = cell.directory / "containerd.log"
        self.pid = 0
        self.service = Service(cell, qemubox, self.log)
        self.archives = archives
        self._config = cell.directory / "containerd.toml"
        self._config.write_text(flavour.config(cell.directory / "root"))
        # Those that have images, and so perhaps snapshots.
        self.snapshotters = {"overlayfs"}
        if flavour.erofs_snapshotter:
            _make_scratch(scratch_file(cell.directory / "root"))
        self.environment = {
            "PATH": f"{qemubox.bin}:{flavour.shims}:{_SYSTEM_PATH}",
            "LANG": "C.UTF-8",
            "TMPDIR": str(cell.directory / "tmp"),
            **qemubox.environment,
        }
        (cell.directory / "tmp").mkdir(exist_ok=True)

    def upgraded(self, flavour: Flavour) -> "Containerd":
        """Another containerd, not running yet, for the directories of this one, which has been stopped."""
        new = Containerd(flavour, self.cell, self.qemubox, self.archives)
        new.service = self.service
        return new

    def start(self) -> None:
        """Start it and wait until it answers."""
        argv = [str(self.flavour.containerd), "--config", str(self._config)]
        self.pid = self.cell.start(argv, self.environment, self.log)
        eventually(self._answers, f"containerd {self.flavour.name} answers\n{self.log_tail()}", _START_DEADLINE_S)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it by the signal `number` and wait until it is gone; shims stay."""
        process = psutil.Process(self.pid)
        process.send_signal(number)
        eventually(lambda: not process.is_running(), f"containerd {self.pid} ends", _STOP_DEADLINE_S)

    def log_tail(self, offset: int = 0, limit: int = 12000) -> str:
        """What it has logged since `offset`, its shims' lines included; at most the last `limit` bytes."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(max(offset, self.log_size() - limit))
            return log.read().decode(errors="replace")

    def log_size(self) -> int:
        """Bytes logged so far."""
        return self.log.stat().st_size if self.log.exists() else 0

    def ctr_command(self, *arguments: str, namespace: str = "default") -> list[str]:
        """The command line of a `ctr` in the cell."""
        return self.cell.inside([str(self.flavour.ctr), "-a", ADDRESS, "-n", namespace, *arguments])

    def ctr(self, *arguments: str, namespace: str = "default", stdin: bytes = b"", deadline_s: float = 60.0) -> Result:
        """Run `ctr`; raises AssertionError with the log's tail when it does not end within `deadline_s`, twice."""
        command = self.ctr_command(*arguments, namespace=namespace)
        shown = ("ctr", *arguments)
        limit_s = deadline_s * PATIENCE
        try:
            done = subprocess.run(
                command, check=False, input=stdin, capture_output=True, timeout=limit_s, env=self._ctr_environment()
            )
        except subprocess.TimeoutExpired as expired:
            said = f"{expired.stdout!r} {expired.stderr!r}"
            raise AssertionError(f"{' '.join(shown)} is still running after {limit_s:g} s; it said {said}") from None
        return Result(shown, done.returncode, done.stdout, done.stderr)

    @contextmanager
    def running(
        self,
        arguments: Sequence[str],
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        namespace: str = "default",
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A `ctr` that goes on while the caller does something; ended at the end if it has not."""
        command = self.ctr_command(*arguments, namespace=namespace)
        with subprocess.Popen(
            command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, bufsize=0, env=self._ctr_environment()
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def update(self, container: str, resources: Mapping[str, object], namespace: str = "default") -> Result:
        """Change the limits of a task: an OCI LinuxResources. `ctr` has no such command."""
        return self._call("update", container, json.dumps(resources), namespace=namespace)

    def create_task(self, container: str, namespace: str = "default", snapshot: str = "") -> Result:
        """Create the task of a container without starting it, and without streams. `ctr` always starts it.

        On the container's own snapshot, or another one.
        """
        mount = self.ctr("snapshots", "mounts", "/rootfs", snapshot or container, namespace=namespace).checked().text
        _mount, _t, fstype, source, _target, _o, options = shlex.split(mount)
        return self.create_task_on(container, fstype, source, options, namespace=namespace)

    def create_task_on(
        self, container: str, fstype: str, source: str, options: str, namespace: str = "default"
    ) -> Result:
        """The same, on a mount that no snapshotter has made."""
        return self._call("create", container, fstype, source, options, namespace=namespace)

    def change_spec(self, container: str, changes: Mapping[str, object], namespace: str = "default") -> None:
        """Merge `changes` into the specification of a container that has no task yet: hooks, for one."""
        program = str(CHECKOUT / "tests/vm/spec_client.py")
        command = self.cell.inside([sys.executable, program, namespace, container, json.dumps(changes)])
        subprocess.run(command, check=True, timeout=_CALL_DEADLINE_S)

    def start_task(self, container: str, namespace: str = "default") -> Result:
        """Start a task that `create_task` has made."""
        return self._call("start", container, namespace=namespace)

    def signal(self, container: str, *numbers: int, everyone: bool = False, namespace: str = "default") -> Result:
        """Send signals of any numbers to a task, one after the other; `ctr` refuses some by itself."""
        arguments = [container, ",".join(map(str, numbers)), *(["all"] if everyone else [])]
        return self._call("kill", *arguments, namespace=namespace)

    def waiting(
        self, container: str, count: int, namespace: str = "default"
    ) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """So many waits for the end of a task at once: says "waiting", then all exit statuses in one line."""
        return self._calling([namespace, "wait", container, str(count)])

    def updating(
        self, container: str, resources: Mapping[str, object], namespace: str = "default"
    ) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """An `update` that is under way; ended at the end if it has not."""
        return self._calling([namespace, "update", container, json.dumps(resources)])

    def _call(self, command: str, *arguments: str, namespace: str) -> Result:
        """A call of task_client.py, to its end."""
        with self._calling([namespace, command, *arguments]) as process:
            stdout, stderr = process.communicate(timeout=_CALL_DEADLINE_S)
        return Result((command, *arguments), process.returncode, stdout, stderr)

    @contextmanager
    def _calling(self, arguments: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
        command = self.cell.inside([sys.executable, str(CHECKOUT / "tests/vm/task_client.py"), *arguments])
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def import_image(self, name: str, snapshotter: str = "overlayfs", namespace: str = "default") -> None:
        """Make the image if need be, and `ctr image import` it, unpacked for `snapshotter`. Raises MissingPart."""
        self.snapshotters.add(snapshotter)
        tar = str(archive(name, self.archives))
        self.ctr("images", "import", "--snapshotter", snapshotter, tar, namespace=namespace, deadline_s=240).checked()

    def remove_image(self, name: str, namespace: str = "default") -> None:
        """Remove the image and, before this returns, all that only it needed."""
        self.ctr("images", "rm", "--sync", name, namespace=namespace).checked()

    def _ctr_environment(self) -> dict[str, str]:
        return {**os.environ, "CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS": "1"}

    def _answers(self) -> bool:
        if not psutil.pid_exists(self.pid):
            raise AssertionError(f"containerd {self.flavour.name} ended at once:\n{self.log_tail()}")
        return self.ctr("version", deadline_s=20).code == 0


def _make_scratch(path: Path) -> None:
    path.touch()
    os.truncate(path, _SCRATCH_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True, timeout=_START_DEADLINE_S)
