"""A container whose containerd has been killed: its shim goes on alone, and answers whoever calls."""

import asyncio
import signal
from typing import Final

from api import task_pb2
from conformance.calls import Known
from conformance.stage import CALL_DEADLINE_S, SLEEP, Asking, new_id, process
from conformance.told import Told
from harness.box import RUN_DEADLINE_S, Box
from harness.containerd import Containerd
from harness.images import BUSYBOX
from harness.shim import Connection
from harness.terminal import terminal

_BUNDLES: Final = "/run/containerd/io.containerd.runtime.v2.task/default"


class Lost(Asking):
    """`ctr run`, and the end of the containerd that ran it. While it is there nothing can be asked of containerd."""

    def __init__(self, containerd: Containerd, runtime: str, runner: asyncio.Runner) -> None:
        self._containerd = containerd
        container_id = new_id()
        with terminal(25, 80) as client:
            words = Box(containerd, runtime).run_arguments(container_id, SLEEP, ["-d", "-t"], BUSYBOX)
            with containerd.running(words, stdin=client.theirs, stdout=client.theirs) as ctr:
                assert ctr.wait(RUN_DEADLINE_S) == 0
        address = _address(containerd, container_id)
        containerd.stop(signal.SIGKILL)
        try:
            connection = runner.run(Connection.dial(containerd, address))
            state = runner.run(_state(connection, container_id))
            create = task_pb2.CreateTaskRequest(
                id=container_id, bundle=state.bundle, terminal=True, stdin=state.stdin, stdout=state.stdout
            )
            known = Known(container_id, create, {state.pid: "the task's pid"}, process(*SLEEP))
            super().__init__(runner, connection, known, Told(None, container_id, of_runc=False))
            self.furnish()
        except BaseException:  # whoever comes next wants one
            containerd.start()
            raise

    def remove(self) -> None:
        """Start containerd again, which finds the container, and remove it."""
        self.close()
        self._containerd.start()
        container = self.known.container_id
        self._containerd.ctr("tasks", "delete", "-f", container)
        self._containerd.ctr("containers", "delete", container).checked()


async def _state(connection: Connection, container_id: str) -> task_pb2.StateResponse:
    """What the shim says of the container: all that is known of it here."""
    return await connection.call(
        "State", task_pb2.StateRequest(id=container_id), task_pb2.StateResponse, CALL_DEADLINE_S
    )


def _address(containerd: Containerd, container_id: str) -> bytes:
    """What `start` has answered, from where containerd keeps it: 1.6 a plain address."""
    bundle = containerd.cell.path(f"{_BUNDLES}/{container_id}")
    kept = bundle / "bootstrap.json"
    return (kept if kept.exists() else bundle / "address").read_bytes()
