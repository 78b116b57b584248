"""One runtime on one containerd: what a test holds in its hands."""

import itertools
import json
import os
import secrets
import select
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final

import psutil

from harness.containerd import Containerd, Result
from harness.deadline import eventually
from harness.events import Events, subscribed
from harness.images import BUSYBOX
from harness.qemubox import RUNTIME

RUNTIMES: Final = {"runc": "io.containerd.runc.v2", "qemubox": RUNTIME}
# A machine's start under TCG with both cores busy takes several seconds.
RUN_DEADLINE_S: Final = 60.0
_numbers = itertools.count(1)
# Test runs at the same time have the same containerd address in their cells: with the same ids, what a shim's clean-up
# looks for by name all over the host would be another run's, too.
_RUN: Final = secrets.token_hex(2)


class Box:
    """Runs containers by one runtime. Ids are unique unless the test gives them."""

    def __init__(self, containerd: Containerd, runtime: str) -> None:
        self.containerd = containerd
        self.runtime = runtime
        self.qemubox = containerd.qemubox
        self.is_vm = runtime == "qemubox"

    def new_id(self) -> str:
        """An id that no other container has, of other test runs neither."""
        return f"c{_RUN}-{next(_numbers)}"

    def run_arguments(self, container: str, command: Sequence[str], options: Sequence[str], image: str) -> list[str]:
        """The arguments of `ctr run`."""
        return ["run", *options, "--runtime", RUNTIMES[self.runtime], image, container, *command]

    def run(
        self,
        *command: str,
        options: Sequence[str] = (),
        image: str = BUSYBOX,
        container: str = "",
        namespace: str = "default",
        stdin: bytes = b"",
        deadline_s: float = RUN_DEADLINE_S,
    ) -> Result:
        """`ctr run --rm`: run to the end, with this standard input; how it ended and what it said."""
        arguments = self.run_arguments(container or self.new_id(), command, ["--rm", *options], image)
        return self.containerd.ctr(*arguments, namespace=namespace, stdin=stdin, deadline_s=deadline_s)

    @contextmanager
    def running(
        self, *command: str, options: Sequence[str] = (), image: str = BUSYBOX, stdin: int = subprocess.DEVNULL
    ) -> Iterator["subprocess.Popen[bytes]"]:
        """`ctr run --rm` in the foreground while the caller does something."""
        arguments = self.run_arguments(self.new_id(), command, ["--rm", *options], image)
        with self.containerd.running(arguments, stdin=stdin) as process:
            yield process

    def start(
        self,
        *command: str,
        options: Sequence[str] = ("--null-io",),
        image: str = BUSYBOX,
        container: str = "",
        namespace: str = "default",
    ) -> str:
        """`ctr run -d`: its id, once it runs."""
        container = container or self.new_id()
        arguments = self.run_arguments(container, command, ["-d", *options], image)
        self.containerd.ctr(*arguments, namespace=namespace, deadline_s=RUN_DEADLINE_S).checked()
        return container

    def start_trapping(self, status: int) -> str:
        """`ctr run -d` of a shell that ends with `status` on SIGTERM: its id, once it is ready for that.

        It says so again and again, as the leaving `ctr` may take the first words with it.
        """
        container = self.new_id()
        fifos = self.containerd.cell.directory / "tmp" / f"fifos-{container}"
        fifos.mkdir()
        script = f'trap "exit {status}" TERM; while :; do echo ready; sleep 0.1; done'
        self.start("sh", "-c", script, options=("--fifo-dir", str(fifos)), container=container)
        # Non-blocking, so that opening waits for nobody; the shim has it open for writing as long as it lives.
        fd = os.open(next(fifos.rglob("*stdout")), os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(fd, "rb", buffering=0) as stdout:
            said, _, _ = select.select([stdout], [], [], RUN_DEADLINE_S)
            assert said, f"{container} says nothing"
            assert stdout.read().startswith(b"ready\n")
        shutil.rmtree(fifos)
        return container

    def kill(self, container: str, number: str = "KILL", namespace: str = "default") -> Result:
        """`ctr task kill -s`."""
        return self.containerd.ctr("tasks", "kill", "-s", f"SIG{number}", container, namespace=namespace)

    def delete_task(self, container: str, namespace: str = "default") -> Result:
        """`ctr task delete`."""
        return self.containerd.ctr("tasks", "delete", container, namespace=namespace)

    def remove(self, container: str, namespace: str = "default") -> Result:
        """`ctr container delete`, with its snapshot."""
        return self.containerd.ctr("containers", "delete", container, namespace=namespace)

    def status(self, container: str, namespace: str = "default") -> str:
        """RUNNING, STOPPED and so on; empty when there is no such task."""
        for line in self.containerd.ctr("tasks", "ls", namespace=namespace).text.splitlines()[1:]:
            name, _pid, status = line.split()
            if name == container:
                return status
        return ""

    def task_pid(self, container: str) -> int:
        """The pid that containerd shows for the task."""
        for line in self.containerd.ctr("tasks", "ls").checked().text.splitlines()[1:]:
            name, pid, _status = line.split()
            if name == container:
                return int(pid)
        raise AssertionError(f"there is no task {container}")

    def inspect(self, container: str) -> dict[str, object]:
        """`qemubox inspect`, run in the cell, where the machine's files are."""
        command = self.containerd.cell.inside([str(self.qemubox.bin / "qemubox"), "inspect", container])
        done = subprocess.run(
            command, check=True, capture_output=True, env=os.environ | self.qemubox.environment, timeout=30
        )
        (document,) = json.loads(done.stdout)
        assert isinstance(document, dict)
        return document

    def lose(self, container: str, victim: psutil.Process, deadline_s: float) -> int:
        """Kill `victim` without warning, then remove the container; the exit status that was published for it."""
        with self.events() as events:
            victim.kill()
            status = events.wait("/tasks/exit", container, deadline_s).fields["exit_status"]
        assert isinstance(status, int)
        self.containerd.ctr("tasks", "delete", "-f", container)
        self.remove(container).checked()
        return status

    def events(self) -> AbstractContextManager[Events]:
        """What containerd publishes from now on."""
        return subscribed(self.containerd)

    def shim(self, container: str) -> psutil.Process:
        """The shim daemon of a container."""
        found = self.processes(f"-id {container} ", "containerd-shim-")
        assert found, f"{container} has no shim"
        return found[0]

    def processes(self, *words: str) -> list[psutil.Process]:
        """The cell's processes whose command line has all of `words`, oldest first."""
        found = []
        for process in self.containerd.cell.processes():
            try:
                line = " ".join(process.cmdline()) + " "
            except psutil.Error:  # it ended while we looked
                continue
            if all(word in line for word in words):
                found.append(process)
        return found

    def wait_stopped(self, container: str, namespace: str = "default", deadline_s: float = 30.0) -> None:
        """Wait until containerd says that the task has ended or is gone."""
        eventually(lambda: self.status(container, namespace) in ("", "STOPPED"), f"{container} has ended", deadline_s)

    def remove_all(self) -> None:
        """Kill and remove whatever containers there still are; for the end of a test that failed."""
        for namespace in self.containerd.ctr("namespaces", "ls", "-q").text.split():
            for container in self.containerd.ctr("containers", "ls", "-q", namespace=namespace).text.split():
                self.containerd.ctr("tasks", "delete", "-f", container, namespace=namespace)
                self.remove(container, namespace)
