"""The three files of names that a container gets with its network, when its client brings none."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from api import guest_pb2
from shim.log import Logger, open_log
from shim.network import names
from shim.network.names import Resolver, for_container, hosts, messages, of_the_host, parse, reachable, resolver_of
from shim.spec import OwnFile

_LOCALHOST = (
    "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
)
_HOST = Resolver(("192.0.2.53",), ("example.org",), ("ndots:2",))


@dataclass(frozen=True)
class Said:
    """cni.result.Dns."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def test_what_a_resolv_conf_says() -> None:
    text = """# nameserver 192.0.2.9
; nameserver 192.0.2.10
nameserver 192.0.2.1
nameserver\t2001:db8::1  # the other one
  nameserver 192.0.2.3
nameserver
sortlist 192.0.2.0/24
domain example.net
search example.org  sub.example.org
options ndots:5
options timeout:1 rotate
nonsense
"""
    assert parse(text) == Resolver(
        ("192.0.2.1", "2001:db8::1", "192.0.2.3"),
        ("example.org", "sub.example.org"),
        ("ndots:5", "timeout:1", "rotate"),
    )


def test_the_last_list_of_domains_counts() -> None:
    assert parse("search a b\ndomain c\n").search == ("c",)
    assert parse("search a\nsearch\n").search == ()


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    resolver = parse(text)
    assert parse(resolver.content.decode()) == resolver


def test_the_file_of_a_resolver() -> None:
    assert Resolver(("192.0.2.1", "2001:db8::1"), ("a", "b"), ("rotate",)).content == (
        b"nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch a b\noptions rotate\n"
    )
    assert Resolver().content == b""


@pytest.mark.parametrize(
    "address",
    ["127.0.0.53", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "fe80::1%eth0", "example.org", "", "1.2.3"],
)
def test_a_server_that_only_the_host_reaches_is_left_out(address: str) -> None:
    resolver = Resolver((address, "192.0.2.1"), ("a",), ("b",))
    assert reachable(resolver) == Resolver(("192.0.2.1",), ("a",), ("b",))


@pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.253", "2001:db8::1", "fd00::53"])
def test_every_other_server_stays(address: str) -> None:
    assert reachable(Resolver((address,))).nameservers == (address,)


@pytest.mark.parametrize(
    ("etc", "behind", "found"),
    [
        ("nameserver 192.0.2.1", "nameserver 192.0.2.2", ("192.0.2.1",)),
        ("nameserver 127.0.0.53", "nameserver 192.0.2.2", ("192.0.2.2",)),
        ("nameserver 127.0.0.53\nnameserver 192.0.2.1", "nameserver 192.0.2.2", ("192.0.2.1",)),
        ("nameserver 127.0.0.53", "nameserver 127.0.0.1", ()),
        ("nameserver 127.0.0.53", None, ()),
        ("search a", "nameserver 192.0.2.2", ()),
        (None, "nameserver 192.0.2.2", ()),
    ],
)
def test_whom_the_host_asks(tmp_path: Path, etc: str | None, behind: str | None, found: tuple[str, ...]) -> None:
    """systemd-resolved listens on the loopback, and tells elsewhere whom it asks."""
    paths = tmp_path / "etc", tmp_path / "behind"
    for path, text in zip(paths, (etc, behind), strict=True):
        if text is not None:
            path.write_text(text)
    assert of_the_host(*paths).nameservers == found


def test_a_file_that_is_no_text_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "etc"
    path.write_bytes(b"\xff\xfe\x00nameserver\n" * 100_000)
    assert of_the_host(path, path) == Resolver()


@pytest.mark.parametrize(
    ("said", "resolver"),
    [
        (Said(), _HOST),
        (Said(("10.0.0.1",), search=("a",)), Resolver(("10.0.0.1",), ("a",))),
        (Said(("10.0.0.1",), domain="d"), Resolver(("10.0.0.1",), ("d",))),
        (Said(("10.0.0.1",), domain="d", search=("a",)), Resolver(("10.0.0.1",), ("a",))),
        (Said(domain="d", options=("rotate",)), Resolver(_HOST.nameservers, ("d",), ("rotate",))),
        (Said(("10.0.0.1\noptions debug",), search=("a b\nnameserver 6.6.6.6",)), None),
    ],
)
def test_the_network_is_asked_before_the_host(said: Said, resolver: Resolver | None) -> None:
    found = resolver_of(said, _HOST)
    if resolver is None:  # no word of it is a line of its own
        assert [line.split()[0] for line in found.content.decode().splitlines()].count("options") == 0
    else:
        assert found == resolver


def test_hosts_names_every_address_of_the_container() -> None:
    found = hosts("web", ["10.88.0.2/16", "2001:db8::2/64", "10.88.0.2", "fe80::1/64", "127.0.0.1/8", "192.0.2.1"])
    assert found.decode() == _LOCALHOST + "10.88.0.2\tweb\n2001:db8::2\tweb\n192.0.2.1\tweb\n"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("web.example.org", "10.0.0.2\tweb.example.org web\n"),
        (".web", "10.0.0.2\t.web\n"),
        ("", ""),
        ("a b", ""),
        ("a\n6.6.6.6 b", ""),
    ],
)
def test_the_name_in_hosts(name: str, line: str) -> None:
    assert hosts(name, ["10.0.0.2"]).decode() == _LOCALHOST + line


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Logger]:
    (tmp_path / "log").touch()
    yield open_log(tmp_path / "log", level="info", namespace="ns", container_id="c")
    structlog.reset_defaults()


async def test_all_three_of_a_container(tmp_path: Path, log: Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "of_the_host", lambda: _HOST)
    assert await for_container("web", ["10.0.0.2/24"], Said(), log) == {
        "/etc/hosts": f"{_LOCALHOST}10.0.0.2\tweb\n".encode(),
        "/etc/hostname": b"web\n",
        "/etc/resolv.conf": b"nameserver 192.0.2.53\nsearch example.org\noptions ndots:2\n",
    }
    assert (tmp_path / "log").read_text() == ""
    monkeypatch.setattr(names, "of_the_host", lambda: Resolver(search=("a",)))
    assert (await for_container("web", [], Said(), log))["/etc/resolv.conf"] == b"search a\n"
    assert 'level=warning msg="the container has no name server"' in (tmp_path / "log").read_text()


def test_the_guest_gets_those_that_it_has_mounts_for() -> None:
    contents = {"/etc/hosts": b"h", "/etc/hostname": b"n", "/etc/resolv.conf": b"r"}
    assert messages([OwnFile("own-hosts", "/etc/hosts"), OwnFile("own-resolv.conf", "/etc/resolv.conf")], contents) == [
        guest_pb2.File(name="own-hosts", content=b"h", mode=0o644, dispensable=True),
        guest_pb2.File(name="own-resolv.conf", content=b"r", mode=0o644, dispensable=True),
    ]
