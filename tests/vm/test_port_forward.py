"""Ports of a container, dialled at localhost in the network namespace of its pid, as `crictl port-forward` does.

containerd's CRI plugin joins the namespace and dials 127.0.0.1, then ::1 (sandbox_portforward_linux.go). With runc the
container's own servers answer; with qemubox they are in a machine, and must all the same.
"""

import hashlib
import os
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from deploy.image import BUSYBOX as BUSYBOX_PROGRAM
from harness.attached import namespace
from harness.box import Box
from harness.deadline import eventually
from shim.network.forward import MOST
from shim.network.netns import within

# On a port each: busybox's nc runs the program for each connection, with the connection as its 0 and 1.
_ECHO, _SUM, _SOURCE, _DEAF, _REPLY = range(7001, 7006)
_SERVERS = f"""
nc -ll -p {_ECHO} -e cat &
nc -ll -p {_SUM} -e sha256sum &
nc -ll -p {_SOURCE} -e cat /bin/busybox &
nc -ll -p {_DEAF} -e sleep 1000 &
nc -ll -p {_REPLY} -e sh -c 'read line; echo "$line, and no more"' &
httpd -p 127.0.0.1:80
httpd -p [::1]:81
wait
"""
_SECONDS = 30.0
_MIB = 1 << 20
_RESET = struct.pack("ii", 1, 0)


class Dial(Protocol):
    """Connects in the namespace of the container's pid; closed at the end."""

    def __call__(self, port: int, address: str = "127.0.0.1") -> socket.socket: ...


@contextmanager
def serving(box: Box) -> Iterator[tuple[str, Dial]]:
    """A container with the servers, and what dials them from the host."""
    with namespace(box.containerd.cell) as joined:
        container = box.start("sh", "-c", _SERVERS, options=("--null-io", *joined.options))
        with _dialling(box, container) as dial:
            yield container, dial
        box.kill(container)
        box.wait_stopped(container)
        box.delete_task(container)
        box.remove(container).checked()


@contextmanager
def _dialling(box: Box, container: str) -> Iterator[Dial]:
    netns = os.open(f"/proc/{box.task_pid(container)}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    made: list[socket.socket] = []

    def dial(port: int, address: str = "127.0.0.1") -> socket.socket:
        def connect() -> socket.socket:
            made.append(client := socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET))
            client.settimeout(_SECONDS)
            client.connect((address, port))
            return client

        return within(netns, connect)

    def answers() -> bool:
        try:
            with dial(81, "::1") as client:  # the last one to be there
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return bool(receive(client))
        except ConnectionError:
            return False

    try:
        eventually(answers, "the container serves", _SECONDS)
        yield dial
    finally:
        for each in made:
            each.close()
        os.close(netns)


def receive(client: socket.socket) -> bytes:
    """All that comes, to its end. Raises ConnectionResetError."""
    got = bytearray()
    while data := client.recv(1 << 18):
        got += data
    return bytes(got)


def test_each_half_ends_by_itself_and_nothing_is_lost(box: Box) -> None:
    data = os.urandom(3 * _MIB)
    with serving(box) as (_, dial):
        for address in ("127.0.0.1", "::1"):
            client = dial(_SUM, address)
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            assert receive(client).split()[0].decode() == hashlib.sha256(data).hexdigest()
        assert receive(dial(_SOURCE)) == Path(BUSYBOX_PROGRAM).read_bytes()
        client = dial(_ECHO)
        for _ in range(20):
            client.sendall(b"ping")
            assert client.recv(100) == b"ping"
        with ThreadPoolExecutor(1) as pool:
            echoed = pool.submit(receive, client)
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            assert echoed.result(_SECONDS) == data


def test_a_server_on_one_address_is_found_as_containerd_looks_for_it(box: Box) -> None:
    """127.0.0.1 first, ::1 where that is refused: by the client, or for it."""
    with serving(box) as (_, dial):
        for port in (80, 81):
            try:
                client = dial(port)
            except ConnectionRefusedError:
                client = dial(port, "::1")
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert receive(client).startswith(b"HTTP/1.")


def test_a_port_where_nobody_listens(box: Box) -> None:
    with serving(box) as (_, dial), pytest.raises(ConnectionError):
        dial(9).recv(1)


@pytest.mark.release
def test_a_server_s_reset_is_a_reset(box: Box) -> None:
    with serving(box) as (_, dial):
        client = dial(_REPLY)
        client.sendall(b"this far\n" + bytes(100_000))
        assert client.recv(100) == b"this far, and no more\n"
        with pytest.raises(ConnectionResetError):
            receive(client)


def test_who_does_not_read_stops_nobody_else(box: Box) -> None:
    with serving(box) as (_, dial):
        deaf = dial(_DEAF)
        deaf.setblocking(False)
        with pytest.raises(BlockingIOError):
            _flood(deaf)
        echo = dial(_ECHO)
        echo.sendall(b"ping")
        assert echo.recv(100) == b"ping"


def _flood(client: socket.socket) -> None:
    while True:
        client.send(bytes(1 << 18))


@pytest.mark.release
def test_a_hundred_one_after_the_other_and_as_many_at_once_as_there_may_be(vm: Box) -> None:
    with serving(vm) as (container, dial):
        for number in range(100):
            client = dial(_ECHO)
            client.sendall(str(number).encode())
            client.shutdown(socket.SHUT_WR)
            assert receive(client) == str(number).encode()
            client.close()
        clients = eventually(lambda: _echoing(dial, MOST) or None, "those before have ended", _SECONDS)
        with pytest.raises(ConnectionResetError):
            dial(_ECHO).recv(1)
        # There are streams left for processes.
        with ExitStack() as running:
            for number in range(3):
                command = ["tasks", "exec", "--exec-id", f"e{number}", container, "cat"]
                running.enter_context(vm.containerd.running(command))
            assert vm.containerd.ctr("tasks", "exec", "--exec-id", "last", container, "echo", "yes").text == "yes"
        clients[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        clients[0].close()
        eventually(lambda: bool(_echoing(dial, 1)), "there is room again", _SECONDS)


def _echoing(dial: Dial, count: int) -> list[socket.socket]:
    """So many connections at once, if they are all served; otherwise none."""
    clients = [dial(_ECHO) for _ in range(count)]
    try:
        for number, client in enumerate(clients):
            client.sendall(str(number).encode())
        for number, client in enumerate(clients):
            assert client.recv(100) == str(number).encode()
    except ConnectionError:
        for client in clients:
            client.close()
        return []
    return clients


def test_all_ends_with_the_container(box: Box) -> None:
    with serving(box) as (container, dial):
        client = dial(_DEAF)
        box.kill(container)
        box.wait_stopped(container)
        assert _ends(client)
        with pytest.raises(ConnectionError):
            dial(_ECHO).recv(1)


def _ends(client: socket.socket) -> bool:
    """Whether its peer is gone. A killed process's connections end as if it had closed them."""
    try:
        return not receive(client)
    except ConnectionError:
        return True
