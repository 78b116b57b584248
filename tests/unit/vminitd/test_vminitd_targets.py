"""Which addresses are tried for which, by the kernel's own tables as they were read on a machine."""

import socket
from pathlib import Path

import pytest

from vminitd import targets as targets_module
from vminitd.errors import RequestError
from vminitd.targets import Target, targets

FIB_TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        +-- 127.0.0.0/31 1 0 0
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     +-- 10.88.0.0/16 2 0 2
        +-- 10.88.0.0/28 2 0 2
           |-- 10.88.0.0
              /16 link UNICAST
           |-- 10.88.0.9
              /32 host LOCAL
        |-- 10.88.255.255
           /32 link BROADCAST
Local:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
           |-- 10.88.0.9
              /32 host LOCAL
           |-- 192.0.2.2
              /32 host LOCAL
"""
IF_INET6 = """\
fe8000000000000000fc00fffe000001 04 40 20 80     eth0
fe8000000000000000fc00fffe000002 1f 40 20 80     eth1
fd000000000000000000000000000002 04 40 00 82     eth0
00000000000000000000000000000001 01 80 10 80       lo
"""


@pytest.fixture(autouse=True)
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in (("_FOUR", FIB_TRIE), ("_SIX", IF_INET6)):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(targets_module, name, str(tmp_path / name))
    return tmp_path


def addresses(found: list[Target]) -> list[str]:
    return [target.sockaddr[0] for target in found]


def test_localhost_is_wherever_a_server_of_the_machine_listens() -> None:
    found = targets("127.0.0.1", 80)
    assert addresses(found) == ["127.0.0.1", "::1", "10.88.0.9", "192.0.2.2", "fd00::2"]
    assert found[0] == Target(socket.AF_INET, ("127.0.0.1", 80))
    assert found[1] == Target(socket.AF_INET6, ("::1", 80, 0, 0))


@pytest.mark.parametrize("address", ["::1", "127.0.0.2", "10.88.0.9", "fd00::2", "203.0.113.1"])
def test_any_other_is_itself(address: str) -> None:
    assert addresses(targets(address, 80)) == [address]


@pytest.mark.parametrize(
    ("address", "index"), [("fe80::fc:ff:fe00:1", 4), ("fe80::fc:ff:fe00:2", 31), ("fe80::3", 0), ("fd00::2", 0)]
)
def test_a_link_local_address_is_on_the_interface_that_has_it(address: str, index: int) -> None:
    assert targets(address, 80) == [Target(socket.AF_INET6, (address, 80, 0, index))]


def test_a_kernel_without_ipv6(tables: Path) -> None:
    (tables / "_SIX").unlink()
    assert addresses(targets("127.0.0.1", 80)) == ["127.0.0.1", "::1", "10.88.0.9", "192.0.2.2"]
    assert targets("fe80::1", 80) == [Target(socket.AF_INET6, ("fe80::1", 80, 0, 0))]


@pytest.mark.parametrize("address", ["", "localhost", "1.2.3", "::1%lo", "fe80::1%1", "1.2.3.4.5", "a\0b", "1::2::3"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(RequestError, match="is no IP address"):
        targets(address, 80)


@pytest.mark.parametrize("port", [0, 65536, 1 << 31])
def test_what_is_no_port(port: int) -> None:
    with pytest.raises(RequestError, match=f"there is no TCP port {port}"):
        targets("127.0.0.1", port)
