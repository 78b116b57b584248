"""A shim's services for copies, on a socket, with a made-up guest behind them."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest
import structlog

from shim.copy import address, command
from shim.copy.transfer import services
from shim.log import Logger
from shim.task.container import Container
from tests.unit.shim.copy.copy_guest import FakeContainer, FakeGuest
from ttrpc import Client, Server


class Site:
    """A shim that serves one container, `c`, and what the command is told of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.guest = FakeGuest()
        self.container = FakeContainer(self.guest)
        log = cast("Logger", structlog.get_logger())
        self.containers = {"c": cast("Container", self.container)}
        self.server = Server(services(self.containers, log))
        self.socket = str(directory / "s")
        (directory / "vm/k").mkdir(parents=True)
        address.write(directory / "vm/k", address.Address("default", "c", str(directory), self.socket))
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.socket)
        self.listener.listen()
        self.listener.setblocking(False)

    async def cp(self, source: str, destination: str) -> int:
        """The command, in a thread with a loop of its own, as it has a process of its own."""

        def run() -> int:
            return command.run(self.directory, source, destination, namespace="", follow=False, archive=False)

        async with asyncio.timeout(30):
            return await asyncio.to_thread(run)

    async def connect(self) -> Client:
        """A client of the shim's."""
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, self.socket)
        return Client(sock)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    serving = asyncio.create_task(made.server.serve_listener(made.listener))
    yield made
    await made.server.close(0)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    for end in made.guest.ends:
        end.close()
