"""`qemubox ps`, `qemubox inspect`: what is there, also where a shim says nothing."""

import asyncio
import json

import pytest

from api import task_pb2, task_types_pb2
from api.task_ttrpc import TaskBase
from shim.cli.ps import ago
from tests.unit.shim.cli.conftest import Command, MakeMachine
from tests.unit.shim.cli.machines import KEY, Machine
from ttrpc import Code, Context, StatusError


class _Task(TaskBase):
    """A shim's task service, as far as ps asks it."""

    def __init__(self, *, there: bool = True) -> None:
        self._there = there

    async def State(self, request: task_pb2.StateRequest, context: Context) -> task_pb2.StateResponse:
        assert request.id == "box"
        if not self._there:
            raise StatusError(Code.NOT_FOUND, "container box not found")
        return task_pb2.StateResponse(id="box", pid=4711, status=task_types_pb2.PAUSED)


async def test_without_any(qemubox: Command, state_dir: object) -> None:
    assert await qemubox("ps") == 0
    assert qemubox.out == "NAMESPACE  ID  QEMU  STATE  ACCEL  START  VCPUS  MEMORY  CPU  RSS  AGE\n"
    assert await qemubox("ps", "--json") == 0
    assert json.loads(qemubox.out) == []


async def test_a_machine_that_runs(qemubox: Command, machine: Machine) -> None:
    machine.start()
    assert machine.qemu is not None
    async with machine.serving(_Task()):
        assert await qemubox("ps") == 0
        words = qemubox.out.splitlines()[1].split()
        assert await qemubox("ps", "--json") == 0
        (shown,) = json.loads(qemubox.out)
    assert words[:9] == ["ns", "box", str(machine.qemu.pid), "paused", "tcg", "clone", "2", "512", "MiB"]
    assert shown["state"] == "paused"
    assert shown["task_pid"] == 4711
    assert shown["memory_mib"] == 512
    assert shown["rss"] > 1 << 20
    assert 0 <= shown["age_s"] < 60


async def test_a_shim_that_says_nothing_does_not_hold_up_the_others(qemubox: Command, machines: MakeMachine) -> None:
    hung, gone, well = (
        machines(key=digit * 24, namespace=name) for digit, name in (("a", "x"), ("b", "y"), ("c", "z"))
    )
    with hung.silent():
        async with well.serving(_Task()):
            began = asyncio.get_running_loop().time()
            assert await qemubox("ps", "--json") == 0
            took_s = asyncio.get_running_loop().time() - began
    assert {each["namespace"]: each["state"] for each in json.loads(qemubox.out)} == {
        "x": "no answer",
        "y": "no answer",
        "z": "paused",
    }
    assert took_s < 5
    assert not gone.socket.exists()


async def test_before_create_has_ended_there_is_no_task(qemubox: Command, machine: Machine) -> None:
    async with machine.serving(_Task(there=False)):
        assert await qemubox("ps") == 0
    assert qemubox.out.splitlines()[1].split() == ["ns", "box", "-", "no", "task", *["-"] * 7]


async def test_a_pid_that_is_another_process_by_now(qemubox: Command, machine: Machine) -> None:
    machine.start()
    machine.end()
    assert await qemubox("ps", "--json") == 0
    (shown,) = json.loads(qemubox.out)
    assert shown["qemu_pid"]
    assert (shown["cpu_s"], shown["rss"], shown["age_s"]) == (None, None, None)


async def test_one_namespace_and_ids_alone(qemubox: Command, machines: MakeMachine) -> None:
    machines(key="a" * 24, namespace="x", container="one")
    machines(key="b" * 24, namespace="y", container="two")
    assert await qemubox("ps", "-q") == 0
    assert qemubox.out == "one\ntwo\n"
    assert await qemubox("ps", "-q", "--namespace", "y") == 0
    assert qemubox.out == "two\n"


async def test_a_damaged_file_is_told_and_the_others_are_shown(qemubox: Command, machine: Machine) -> None:
    (machine.directory / "machine.json").write_text("{")
    assert await qemubox("ps") == 0
    assert "machine.json cannot be read" in qemubox.err
    assert qemubox.out.splitlines()[1].startswith("ns")


async def test_a_file_of_another_version(qemubox: Command, machine: Machine) -> None:
    """Containers run on over an upgrade, and over a step back."""
    machine.start()
    path = machine.directory / "machine.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"of_the_future": 1}))
    assert await qemubox("ps", "--json") == 0
    assert json.loads(qemubox.out)[0]["vcpus"] == 2


async def test_inspect(qemubox: Command, machine: Machine) -> None:
    machine.start()
    assert await qemubox("inspect", "box") == 0
    (shown,) = json.loads(qemubox.out)
    assert shown["directory"] == str(machine.directory)
    assert shown["bundle"] == str(machine.bundle)
    assert shown["shim_socket"] == str(machine.socket)
    assert f"guest=qemubox-{KEY}" in shown["qemu"]
    assert shown["interfaces"]["eth0"]["tap"] == "tap0"
    assert await qemubox("inspect", "name-of-box") == 0
    assert json.loads(qemubox.out) == [shown]
    assert await qemubox("inspect", "--namespace", "other", "box") == 1
    assert "no machine runs for container box in namespace other" in qemubox.err


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0s"), (59, "59s"), (61, "1m01s"), (7384, "2h03m"), (90000, "1d01h"), (1e7, "115d17h")]
)
def test_how_long_ago(seconds: float, text: str) -> None:
    assert ago(seconds) == text
