"""The calls of the table: how each is made, and what its answer says with all that differs from run to run taken out.

An answer in words: "the task's pid, running"; of an error its message. Two runtimes, or two runs, that answer alike
have the same words.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from api import runc_options_pb2, task_pb2, task_types_pb2

JSON: Final = "types.containerd.io/opencontainers/runtime-spec/1/"
SIGKILL: Final = 9
# The ids of the processes that exec adds in the stages: one that runs, and one that is only registered.
RUNNING_EXEC: Final = "e"
ADDED_EXEC: Final = "a"
NEW_EXEC: Final = "n"


@dataclass
class Known:
    """What is known of the container that is asked about. `pids` says whose a pid is."""

    container_id: str
    create: task_pb2.CreateTaskRequest
    pids: dict[int, str]
    # What a process to exec is: its OCI Process, as JSON.
    process: bytes

    def whose(self, pid: int) -> str:
        """In words."""
        return self.pids.get(pid, "another pid") if pid else "no pid"


@dataclass(frozen=True, repr=False)
class Call:
    """One call. `name` is what the table shows, `exec_id` which process it is for, if nobody says another."""

    name: str
    method: str
    request: Callable[[Known, str], Message]
    reply: type[Message]
    words: Callable[[Known, Message], str]
    exec_id: str = ""

    def __repr__(self) -> str:
        return self.name


def _empty(_known: Known, _reply: Message) -> str:
    return ""


def _pid(known: Known, reply: Message) -> str:
    assert isinstance(reply, task_pb2.CreateTaskResponse | task_pb2.StartResponse)
    return "a pid" if known.whose(reply.pid) == "another pid" else known.whose(reply.pid)


def _state(known: Known, reply: Message) -> str:
    assert isinstance(reply, task_pb2.StateResponse)
    create = known.create
    assert reply.bundle == create.bundle, f"another bundle: {reply}"
    # Of an exec runc's shim gives its own id as `id`, ours the container's and `exec_id`; containerd looks at neither.
    if reply.id == known.container_id and not reply.exec_id:
        told = (reply.stdin, reply.stdout, reply.stderr, reply.terminal)
        assert told == (create.stdin, create.stdout, create.stderr, create.terminal), f"other streams: {reply}"
    status = task_types_pb2.Status.Name(reply.status).lower()
    return f"{status}, {known.whose(reply.pid)}{_end(reply)}"


def _end(reply: task_pb2.StateResponse | task_pb2.DeleteResponse | task_pb2.WaitResponse) -> str:
    """How it ended, if it has."""
    at = reply.exited_at.seconds > 0
    return f", exit {reply.exit_status}{'' if at else ' at no time'}" if at or reply.exit_status else ""


def _wait(_known: Known, reply: Message) -> str:
    assert isinstance(reply, task_pb2.WaitResponse)
    return _end(reply).removeprefix(", ") or "exit 0 at no time"


def _delete(known: Known, reply: Message) -> str:
    assert isinstance(reply, task_pb2.DeleteResponse)
    return f"{known.whose(reply.pid)}{_end(reply)}"


def _pids(known: Known, reply: Message) -> str:
    assert isinstance(reply, task_pb2.PidsResponse)
    found = []
    for each in reply.processes:
        whose = known.whose(each.pid)
        if each.HasField("info"):
            assert each.info.type_url == "containerd.runc.v1.ProcessDetails", each
            whose += f" ({runc_options_pb2.ProcessDetails.FromString(each.info.value).exec_id})"
        found.append(whose)
    return ", ".join(sorted(found, reverse=True)) or "nothing"


def _stats(_known: Known, reply: Message) -> str:
    assert isinstance(reply, task_pb2.StatsResponse)
    assert reply.stats.value, "empty metrics"
    return reply.stats.type_url


def _connect(known: Known, reply: Message) -> str:
    assert isinstance(reply, task_pb2.ConnectResponse)
    assert reply.shim_pid, "no pid of the shim"
    return known.whose(reply.task_pid)


def exec_request(known: Known, exec_id: str, process: bytes = b"") -> task_pb2.ExecProcessRequest:
    """Exec of what `known` says, or of `process`; on a terminal."""
    stdio = {"stdin": known.create.stdin, "stdout": known.create.stdout}
    spec = AnyMessage(type_url=f"{JSON}Process", value=process or known.process)
    return task_pb2.ExecProcessRequest(id=known.container_id, exec_id=exec_id, terminal=True, spec=spec, **stdio)


def _of(kind: type[Message], **fields: object) -> Callable[[Known, str], Message]:
    """The request for the container."""
    return lambda known, _exec_id: kind(id=known.container_id, **fields)


def _of_process(kind: type[Message], **fields: object) -> Callable[[Known, str], Message]:
    """The request for one of its processes."""
    return lambda known, exec_id: kind(id=known.container_id, exec_id=exec_id, **fields)


def _process_calls(suffix: str, exec_id: str, startable: str) -> list[Call]:
    """The calls that are for one process."""
    kill = _of_process(task_pb2.KillRequest, signal=SIGKILL)
    size = _of_process(task_pb2.ResizePtyRequest, width=80, height=25)
    close = _of_process(task_pb2.CloseIORequest, stdin=True)
    start, delete = _of_process(task_pb2.StartRequest), _of_process(task_pb2.DeleteRequest)
    return [
        Call(f"Start{suffix}", "Start", start, task_pb2.StartResponse, _pid, startable),
        Call(f"State{suffix}", "State", _of_process(task_pb2.StateRequest), task_pb2.StateResponse, _state, exec_id),
        Call(f"Wait{suffix}", "Wait", _of_process(task_pb2.WaitRequest), task_pb2.WaitResponse, _wait, exec_id),
        Call(f"Kill{suffix}", "Kill", kill, Empty, _empty, exec_id),
        Call(f"Delete{suffix}", "Delete", delete, task_pb2.DeleteResponse, _delete, exec_id),
        Call(f"ResizePty{suffix}", "ResizePty", size, Empty, _empty, exec_id),
        Call(f"CloseIO{suffix}", "CloseIO", close, Empty, _empty, exec_id),
    ]


def _checkpoint(known: Known, _exec_id: str) -> Message:
    return task_pb2.CheckpointTaskRequest(id=known.container_id, path=f"{known.create.bundle}/checkpoint")


_LIMITS: Final = AnyMessage(type_url=f"{JSON}LinuxResources", value=b'{"pids": {"limit": 500}}')
_CONTAINER_CALLS: Final = [
    Call("Create", "Create", lambda known, _exec_id: known.create, task_pb2.CreateTaskResponse, _pid),
    Call("Kill(all)", "Kill", _of(task_pb2.KillRequest, signal=SIGKILL, all=True), Empty, _empty),
    Call("Exec", "Exec", exec_request, Empty, _empty, NEW_EXEC),
    Call("Exec(same id)", "Exec", exec_request, Empty, _empty, RUNNING_EXEC),
    Call("Pids", "Pids", _of(task_pb2.PidsRequest), task_pb2.PidsResponse, _pids),
    Call("Pause", "Pause", _of(task_pb2.PauseRequest), Empty, _empty),
    Call("Resume", "Resume", _of(task_pb2.ResumeRequest), Empty, _empty),
    Call("Update", "Update", _of(task_pb2.UpdateTaskRequest, resources=_LIMITS), Empty, _empty),
    Call("Stats", "Stats", _of(task_pb2.StatsRequest), task_pb2.StatsResponse, _stats),
    Call("Connect", "Connect", _of(task_pb2.ConnectRequest), task_pb2.ConnectResponse, _connect),
    Call("Checkpoint", "Checkpoint", _checkpoint, Empty, _empty),
    Call("Shutdown", "Shutdown", _of(task_pb2.ShutdownRequest), Empty, _empty),
]
CALLS: Final = {
    call.name: call
    for call in (
        *_CONTAINER_CALLS,
        *_process_calls("", "", ""),
        *_process_calls("(exec)", RUNNING_EXEC, ADDED_EXEC),
    )
}
