"""What is seen of namespaces, and the interface that stands in for one that is gone."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from cni import CniError
from cni.namespace import has_interface, is_network_namespace, is_own
from cni.standin import shown
from tests.unit.cni.namespaces import inside, ip
from tests.unit.shim.observe import same_fds


def test_what_is_a_network_namespace(tmp_path: Path, empty_netns: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    with same_fds():
        assert is_network_namespace(empty_netns)
        assert is_network_namespace("/proc/self/ns/net")
        others = ["", "\0", "/proc/self/ns/mnt", *map(str, (tmp_path, tmp_path / "pipe", tmp_path / "file", "/none"))]
        assert [path for path in others if is_network_namespace(path)] == []
    assert (is_own("/proc/self/ns/net"), is_own(empty_netns), is_own("/none")) == (True, False, False)


def test_an_interface_is_looked_for_in_the_namespace_alone(netns: str) -> None:
    before = os.readlink("/proc/thread-self/ns/net")
    with same_fds():
        assert has_interface(netns, "lo")
        assert not has_interface(netns, "eth0")
        inside(netns, "ip", "link", "add", "eth0", "type", "veth")
        assert has_interface(netns, "eth0")
        assert not has_interface("/none", "lo")
    assert os.readlink("/proc/thread-self/ns/net") == before
    assert threading.active_count() == 1


async def test_a_stand_in_has_the_addresses_and_goes() -> None:
    before = ip("netns", "list"), ip("-o", "link")
    with same_fds():
        async with shown("eth0", ["10.9.0.2/24", "fd09::2/64"], timeout_s=10) as netns:
            assert is_network_namespace(netns)
            assert not is_own(netns)
            seen = await _addresses(netns)
            assert "inet 10.9.0.2/24" in seen
            assert "inet6 fd09::2/64" in seen
    assert not Path(netns).exists()
    assert (ip("netns", "list"), ip("-o", "link")) == before


async def test_a_stand_in_that_cannot_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with same_fds():
        with pytest.raises(CniError, match=r"nothing can stand in for the interface 'a/b' that is gone: .*a/b"):
            async with shown("a/b", [], timeout_s=10):
                pass
        (tmp_path / "ip").write_text("#!/bin/sh\nexec sleep 600\n")
        (tmp_path / "ip").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        with pytest.raises(CniError, match="that is gone: no word"):
            async with shown("eth0", [], timeout_s=0.2):
                pass
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(CniError, match="that is gone: unshare: No such file or directory"):
            async with shown("eth0", [], timeout_s=10):
                pass


async def _addresses(netns: str) -> str:
    child = await asyncio.create_subprocess_exec(
        "nsenter", f"--net={netns}", "ip", "address", "show", "eth0", stdout=asyncio.subprocess.PIPE
    )
    said, _ = await child.communicate()
    return said.decode()
