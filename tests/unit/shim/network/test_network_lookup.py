"""Connections to local addresses of a real network namespace, and what the real kernel makes of them. Needs root."""

import ctypes
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from shim.errors import HostError
from shim.network import lookup
from shim.network.lookup import Lookup, program, take_over
from shim.network.netns import within
from tests.unit.shim.network.dialling import SECONDS, client
from tests.unit.shim.network.places import Place
from tests.unit.shim.observe import same_fds


@pytest.fixture
def caught(inside: Place) -> Iterator[Lookup]:
    """`inside`, with addresses of its own, and all connections to them ours."""
    inside.script("addr add 10.9.8.7/24 dev lo", "addr add fd00::7/64 dev lo")
    with same_fds():
        lookup = take_over(inside.fd)
        for listener in lookup.listeners:
            listener.settimeout(SECONDS)
        yield lookup
        lookup.close()


@pytest.mark.parametrize(
    ("address", "port", "seen"),
    [
        ("127.0.0.1", 80, "127.0.0.1"),
        ("127.200.0.9", 65535, "127.200.0.9"),
        ("10.9.8.7", 1, "10.9.8.7"),
        ("::1", 443, "::1"),
        ("fd00::7", 8080, "fd00::7"),
        ("::ffff:127.0.0.1", 80, "127.0.0.1"),
    ],
)
def test_what_was_dialled_is_the_accepted_socket_s_own_address(
    caught: Lookup, inside: Place, address: str, port: int, seen: str
) -> None:
    four, six = caught.listeners
    dialler = client(inside, address, port)
    accepted, peer = (six if ":" in seen else four).accept()
    assert accepted.getsockname()[:2] == (seen, port)
    assert peer[1] == dialler.getsockname()[1]
    dialler.sendall(b"question")
    assert accepted.recv(100) == b"question"
    accepted.sendall(b"answer")
    assert dialler.recv(100) == b"answer"
    dialler.close()
    accepted.close()


def test_also_where_somebody_listens_but_not_what_he_has_accepted_before(inside: Place) -> None:
    server = within(inside.fd, lambda: socket.create_server(("127.0.0.1", 8000)))
    before = client(inside, "127.0.0.1", 8000)
    old, _ = server.accept()
    ours = take_over(inside.fd)
    after = client(inside, "127.0.0.1", 8000)
    ours.listeners[0].settimeout(SECONDS)
    accepted, _ = ours.listeners[0].accept()
    old.sendall(b"still here")
    assert before.recv(100) == b"still here"
    ours.close()
    again = client(inside, "127.0.0.1", 8000)  # and he has it back
    server.settimeout(SECONDS)
    server.accept()[0].close()
    for sock in (server, before, old, after, accepted, again):
        sock.close()


def test_after_close_all_is_as_it_was(caught: Lookup, inside: Place) -> None:
    waiting = client(inside, "127.0.0.1", 80)  # not accepted yet
    caught.close()
    caught.close()
    with pytest.raises(ConnectionRefusedError):
        client(inside, "127.0.0.1", 80)
    with pytest.raises(ConnectionResetError):
        waiting.recv(1)
    waiting.close()
    assert inside.run("/usr/bin/ss", "-Hlnt") == ""


def test_addresses_of_an_interface_are_local_too(wired: Place) -> None:
    wired.script("addr add 10.1.1.1/24 dev eth0", "addr add 10.1.1.5/24 dev eth0", "addr add fd01::1/64 dev eth0 nodad")
    ours = take_over(wired.fd)
    for address in ("10.1.1.1", "10.1.1.5", "fd01::1"):
        client(wired, address, 80).close()
    ours.close()


def test_connections_to_the_outside_are_not_touched(wired: Place, outside: Place) -> None:
    wired.script("addr add 10.1.1.1/24 dev eth0")
    outside.script("addr add 10.1.1.2/24 dev far")
    ours = take_over(wired.fd)
    with pytest.raises(ConnectionRefusedError):
        client(wired, "10.1.1.2", 80)
    ours.close()


def test_datagrams_are_not_touched(caught: Lookup, inside: Place) -> None:
    server = within(inside.fd, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    server.bind(("127.0.0.1", 53))
    server.settimeout(SECONDS)
    sender = within(inside.fd, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sender.sendto(b"query", ("127.0.0.1", 53))
    assert server.recv(100) == b"query"
    server.close()
    sender.close()


def test_another_namespace_is_not_touched(caught: Lookup, outside: Place) -> None:
    with pytest.raises(ConnectionRefusedError):
        client(outside, "127.0.0.1", 80)


def test_a_loopback_that_comes_up_later(inside: Place) -> None:
    inside.ip("link set lo down")
    ours = take_over(inside.fd)
    inside.ip("link set lo up")
    client(inside, "127.0.0.1", 80).close()
    client(inside, "::1", 80).close()
    ours.close()


def test_a_namespace_without_ipv6(inside: Place) -> None:
    inside.run("/usr/sbin/sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    ours = take_over(inside.fd)
    client(inside, "127.0.0.1", 80).close()
    with pytest.raises(OSError, match=os.strerror(errno.EADDRNOTAVAIL)):
        client(inside, "::1", 80)
    ours.close()


def test_a_kernel_without_ipv6(inside: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def only_four(family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        if family is socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return real(family, kind)

    monkeypatch.setattr(socket, "socket", only_four)
    ours = take_over(inside.fd)
    monkeypatch.undo()
    assert [listener.family for listener in ours.listeners] == [socket.AF_INET]
    client(inside, "127.0.0.1", 80).close()
    with pytest.raises(ConnectionRefusedError):
        client(inside, "::1", 80)
    ours.close()


def test_twice_in_one_namespace_the_second_is_refused_by_the_kernel_s_own_rule(caught: Lookup, inside: Place) -> None:
    """The kernel runs them one after the other; a socket that is chosen already is not replaced. None of us loses."""
    second = take_over(inside.fd)
    dialler = client(inside, "127.0.0.1", 80)
    accepted, _ = caught.listeners[0].accept()
    for each in (dialler, accepted):
        each.close()
    second.close()


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL, errno.ENOSYS])
def test_a_kernel_that_does_not_let_us(inside: Place, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> int:
        ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(lookup, "_libc", type("NoBpf", (), {"syscall": staticmethod(refuse)}))
    with same_fds(), pytest.raises(HostError) as caught:
        take_over(inside.fd)
    assert os.strerror(number) in str(caught.value)
    assert "Linux 5.9" in caught.value.hint
    assert inside.run("/usr/bin/ss", "-Hlnt") == ""


def test_what_is_no_namespace_is_an_error(tmp_path: Path) -> None:
    with open(tmp_path / "file", "w") as file, same_fds(), pytest.raises(HostError, match="Invalid argument"):
        take_over(file.fileno())


def test_the_program_s_jumps_end_where_the_answer_is_given() -> None:
    for families in ([socket.AF_INET], [socket.AF_INET, socket.AF_INET6]):
        text = program(3, list(families))
        code = [text[at : at + 8] for at in range(0, len(text), 8)]
        assert [each[0] for each in code[-2:]] == [0xB7, 0x95]
        jumps = [(at, each) for at, each in enumerate(code) if each[0] in (0x15, 0x55)]
        ends = {at + 1 + int.from_bytes(each[2:4], "little") for at, each in jumps}
        assert ends >= {len(code) - 2}
        assert max(ends) == len(code) - 2
