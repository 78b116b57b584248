"""What a daemon takes from its containerd and its bundle as it begins: the log's level, and annotations."""

import asyncio
import json
import os
import signal
import socket

import pytest

from api import bootstrap_pb2, task_pb2
from api.task_ttrpc import TaskStub
from tests.unit.shim.observe import until
from tests.unit.shim.program import Host, Shim
from ttrpc import Client, StatusError

_INFO = "call failed"


async def _refused(shim: Shim) -> str:
    """What a Create that cannot succeed is told."""
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, str(shim.socket))
    client = Client(sock)
    try:
        with pytest.raises(StatusError) as caught:
            await TaskStub(client).Create(task_pb2.CreateTaskRequest(id="c1", bundle=str(shim.bundle)), timeout_s=30)
        return caught.value.message
    finally:
        await client.close()


def _end(shim: Shim) -> str:
    for pid in shim.daemons():
        os.kill(pid, signal.SIGTERM)
    until(lambda: not shim.daemons(), "the daemon has ended")
    return shim.log_text()


@pytest.mark.parametrize(
    ("level", "flags", "configured", "told"),
    [
        (bootstrap_pb2.LOG_LEVEL_INFO, (), "auto", True),
        (bootstrap_pb2.LOG_LEVEL_WARN, (), "auto", False),
        (bootstrap_pb2.LOG_LEVEL_WARN, ("-debug",), "auto", True),
        (bootstrap_pb2.LOG_LEVEL_DEBUG, (), "error", True),
        (bootstrap_pb2.LOG_LEVEL_INFO, (), "error", False),
    ],
)
def test_the_log_has_containerd_s_level(
    host: Host, level: bootstrap_pb2.LogLevel, flags: tuple[str, ...], configured: str, told: bool
) -> None:
    host.config.write_text(f'{host.config.read_text()}[log]\nlevel = "{configured}"\n')
    shim = host.shim()
    params = bootstrap_pb2.BootstrapParams.FromString(shim.bootstrap)
    params.log_level = level
    assert shim.run(shim.words(*flags, "start"), params.SerializeToString()).status == 0
    assert "config.json" in asyncio.run(_refused(shim))
    assert (_INFO in _end(shim)) is told


@pytest.mark.parametrize(
    ("allow", "name", "value", "said"),
    [
        ([], "vm.cpus", "1", "annotations.allow has none"),
        (["vm.cpus"], "vm.cpus", "many", "must be a whole number from 1 to"),
        (["vm.cpus"], "vm.qemu", "/bin/sh", "unknown annotation io.qemubox.vm.qemu = '/bin/sh'"),
    ],
)
def test_create_tells_of_annotations_that_are_refused_and_start_does_not(
    host: Host, allow: list[str], name: str, value: str, said: str
) -> None:
    host.config.write_text(f"{host.config.read_text()}[annotations]\nallow = {json.dumps(allow)}\n")
    shim = host.shim()
    document = {"linux": {}, "annotations": {f"io.qemubox.{name}": value}}
    (shim.bundle / "config.json").write_text(json.dumps(document))
    assert shim.start().status == 0
    for _ in range(2):
        assert said in asyncio.run(_refused(shim))
    _end(shim)
    assert shim.left() == []
