"""The daemon as `start` leaves it, up to where a machine would be needed: connections, refusals, its ends."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from api import task_pb2
from api.task_ttrpc import TaskStub
from shim.copy import address
from tests.unit.shim.observe import until
from tests.unit.shim.program import Host, Shim
from ttrpc import Client, Code, StatusError


@pytest.fixture
def shim(host: Host) -> Iterator[Shim]:
    shim = host.shim()
    assert shim.start().status == 0
    yield shim
    for pid in shim.daemons():
        os.kill(pid, signal.SIGTERM)
    until(lambda: not shim.daemons(), "the daemon has ended")
    assert shim.left() == []


@asynccontextmanager
async def _client(shim: Shim) -> AsyncIterator[Client]:
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, str(shim.socket))
    client = Client(sock)
    yield client
    await client.close()


async def test_it_survives_its_callers(shim: Shim) -> None:
    """containerd restarts: the connection ends, and the next one finds the same shim."""
    pids = set()
    for _ in range(3):
        async with _client(shim) as client:
            reply = await TaskStub(client).Connect(task_pb2.ConnectRequest(id="c1"), timeout_s=30)
            pids.add(reply.shim_pid)
    assert pids == {shim.pid}


async def test_many_connections_and_both_versions_at_once(shim: Shim) -> None:
    async with _client(shim) as one, _client(shim) as other:
        replies = await asyncio.gather(
            *(
                client.call(
                    f"/containerd.task.{version}.Task/Connect",
                    task_pb2.ConnectRequest(id="c1"),
                    task_pb2.ConnectResponse,
                    timeout_s=30,
                )
                for client in (one, other)
                for version in ("v2", "v3")
            )
        )
    assert [reply.shim_pid for reply in replies] == [shim.pid] * 4


async def test_after_shutdown_nobody_can_connect(shim: Shim) -> None:
    """Else containerd would attach a new task of the same id to a dying shim (trap 4)."""
    async with _client(shim) as client:
        await TaskStub(client).Shutdown(task_pb2.ShutdownRequest(id="c1"), timeout_s=30)
        assert not os.path.lexists(shim.socket)


# A container with namespaces of its own.
_OWN = {"linux": {"namespaces": [{"type": kind} for kind in ("mount", "network", "pid", "ipc")]}}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_and_leaves_nothing(shim: Shim, number: int) -> None:
    async with _client(shim) as client:
        await TaskStub(client).Connect(task_pb2.ConnectRequest(id="c1"), timeout_s=30)
        shim.kill(number)
        assert shim.left() == []
    assert "the shim was told to end by a signal" in shim.log_text()


@pytest.mark.parametrize(
    ("config", "code", "message"),
    [
        (None, Code.INVALID_ARGUMENT, "config.json: No such file or directory"),
        ("{", Code.INVALID_ARGUMENT, "not JSON"),
        ({"linux": {}}, Code.INVALID_ARGUMENT, "which a virtual machine cannot give"),
        ({"hooks": {"poststop": [{"path": "x"}]}, **_OWN}, Code.INVALID_ARGUMENT, "it must be absolute"),
        ({"hooks": {"createContainer": [{"path": "/x"}]}, **_OWN}, Code.UNIMPLEMENTED, "hooks.createContainer"),
    ],
)
async def test_a_create_that_is_refused_leaves_the_shim_as_it_was(
    shim: Shim, config: str | dict[str, object] | None, code: Code, message: str
) -> None:
    if config is not None:
        text = config if isinstance(config, str) else json.dumps(config)
        (shim.bundle / "config.json").write_text(text)
    until((shim.directory / address.FILE_NAME).exists, "the daemon is up")
    before = sorted(os.listdir(shim.directory))
    async with _client(shim) as client:
        task = TaskStub(client)
        for _ in range(2):
            with pytest.raises(StatusError, match=message) as caught:
                await task.Create(task_pb2.CreateTaskRequest(id="c1", bundle=str(shim.bundle)), timeout_s=30)
            assert caught.value.code is code
        assert sorted(os.listdir(shim.directory)) == before
        await task.Shutdown(task_pb2.ShutdownRequest(id="c1"), timeout_s=30)
    until(lambda: not shim.daemons(), "the daemon has ended")


async def test_what_is_no_ttrpc_is_logged_and_does_no_harm(shim: Shim) -> None:
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(shim.socket))
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
        text = ""

        def told() -> bool:
            nonlocal text
            text += shim.log_text()
            return "msg=ttrpc" in text

        until(told, "the log tells of it")
    async with _client(shim) as client:
        await TaskStub(client).Connect(task_pb2.ConnectRequest(id="c1"), timeout_s=30)
