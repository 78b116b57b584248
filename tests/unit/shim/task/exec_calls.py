"""The calls of an exec, as containerd makes them, and what is told of it."""

import json
from collections.abc import Awaitable

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from api import task_pb2
from tests.unit.shim.task.service_world import Shim
from tests.unit.shim.task.world import World
from ttrpc import Code, StatusError

_TYPE_URL = "types.containerd.io/opencontainers/runtime-spec/1/Process"


def exec_request(exec_id: str = "e", *, terminal: bool = False, **paths: str) -> task_pb2.ExecProcessRequest:
    """What containerd sends for `ctr tasks exec`, in short."""
    process = {"args": ["true"], "cwd": "/", "terminal": terminal, "selinuxLabel": "x"}
    spec = AnyMessage(type_url=_TYPE_URL, value=json.dumps(process).encode())
    return task_pb2.ExecProcessRequest(id="c", exec_id=exec_id, terminal=terminal, spec=spec, **paths)


async def running(shim: Shim) -> World:
    """A container whose first process runs."""
    world = await shim.create()
    await shim.start()
    return world


async def start(shim: Shim, exec_id: str = "e") -> int:
    """Start; the answer is the pid."""
    return (await shim.task.Start(task_pb2.StartRequest(id="c", exec_id=exec_id), timeout_s=20)).pid


async def wait(shim: Shim, exec_id: str = "e") -> int:
    """Wait; the answer is the exit status."""
    return (await shim.task.Wait(task_pb2.WaitRequest(id="c", exec_id=exec_id), timeout_s=20)).exit_status


async def delete(shim: Shim, exec_id: str = "e") -> task_pb2.DeleteResponse:
    """Delete."""
    return await shim.task.Delete(task_pb2.DeleteRequest(id="c", exec_id=exec_id), timeout_s=20)


async def state(shim: Shim, exec_id: str = "e") -> task_pb2.StateResponse:
    """State."""
    return await shim.task.State(task_pb2.StateRequest(id="c", exec_id=exec_id), timeout_s=20)


async def refused(call: Awaitable[object], code: Code, words: str) -> None:
    """Fail unless the call is refused with this status and these words."""
    with pytest.raises(StatusError, match=words) as caught:
        await call
    assert caught.value.code is code


def told(shim: Shim) -> list[str]:
    """The events, an exec's with its id."""
    found = []
    for event in shim.told.events:
        who = getattr(event, "exec_id", "") or getattr(event, "id", "")
        found.append(f"{type(event).__name__} {who}".strip())
    return found
