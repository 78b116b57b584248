"""TUN, tc and BPF for real, and what is said where one of them fails. Needs root."""

import errno
import os
from pathlib import Path

import pytest

from shim.check import frames, scratch
from shim.errors import HostError, MissingPartError
from shim.network import lookup, redirect, tap
from tests.unit.shim.check.conftest import FakeHost, Say
from tests.unit.shim.observe import same_fds


def _links() -> set[str]:
    return set(os.listdir("/sys/class/net"))


async def test_here_all_of_it_works_and_nothing_is_left(say: Say) -> None:
    links, named = _links(), set(os.listdir("/run/netns")) if Path("/run/netns").is_dir() else set()
    with same_fds():
        said = await say(frames.look)
    assert [(line.level, line.what) for line in said] == [
        ("ok", "/dev/net/tun"),
        ("ok", "tc"),
        ("ok", "BPF SK_LOOKUP"),
    ]
    assert _links() == links
    assert (set(os.listdir("/run/netns")) if Path("/run/netns").is_dir() else set()) <= named


async def test_without_tun(monkeypatch: pytest.MonkeyPatch, fake: FakeHost, say: Say) -> None:
    monkeypatch.setattr(tap, "_TUN", "/nowhere/tun")
    found = (await say(frames.look)).told("/dev/net/tun")
    assert found == ("failure", "/nowhere/tun cannot be opened: No such file or directory", "modprobe -a tun")
    fake.put(f"/lib/modules/{os.uname().release}/modules.dep")
    assert (await say(frames.look)).told("/dev/net/tun")[2] == "use a kernel with the modules tun"


async def test_without_tc(monkeypatch: pytest.MonkeyPatch, say: Say) -> None:
    def refuse(*_: object, **__: object) -> list[int]:
        raise HostError("interface check0 cannot be connected to a TAP: Operation not supported")

    monkeypatch.setattr(tap, "connect", refuse)
    found = (await say(frames.look)).told("tc")
    assert found[0] == "failure"
    assert found[1].endswith("Operation not supported: no container has a network")
    assert found[2] == "modprobe -a sch_ingress cls_u32 act_mirred"


async def test_where_it_is_not_allowed(monkeypatch: pytest.MonkeyPatch, say: Say) -> None:
    def refuse(*_: object, **__: object) -> list[int]:
        raise HostError("not allowed") from OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(tap, "connect", refuse)
    assert "CAP_NET_ADMIN" in (await say(frames.look)).told("tc")[2]


async def test_a_frame_that_does_not_arrive(monkeypatch: pytest.MonkeyPatch, say: Say) -> None:
    """As where mirred is there and does nothing."""
    monkeypatch.setattr(frames, "_WAIT_S", 0.2)
    monkeypatch.setattr(redirect, "lead", lambda *_: None)
    found = (await say(frames.look)).told("tc")
    assert found[0] == "failure"
    assert found[1].startswith("a frame to the guest was lost between the interface and the TAP")


async def test_without_bpf(monkeypatch: pytest.MonkeyPatch, say: Say) -> None:
    def refuse(_netns: int) -> None:
        raise HostError("connections cannot be led", hint="Linux 5.9")

    monkeypatch.setattr(lookup, "take_over", refuse)
    assert (await say(frames.look)).told("BPF")[::2] == ("warning", "Linux 5.9")


async def test_without_veth(monkeypatch: pytest.MonkeyPatch, say: Say) -> None:
    def refuse() -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(frames, "_make_pair", refuse)
    (line,) = await say(frames.look)
    assert (line.what, line.level, line.mend) == ("veth", "failure", "modprobe -a veth")


async def test_without_namespaces(monkeypatch: pytest.MonkeyPatch, say: Say) -> None:
    def refuse() -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(scratch, "_new_namespace", refuse)
    with pytest.raises(HostError, match="max_net_namespaces"):
        await say(frames.look)


async def test_another_error_is_not_taken_for_tuns(monkeypatch: pytest.MonkeyPatch, say: Say) -> None:
    def missing(*_: object, **__: object) -> list[int]:
        raise MissingPartError("/dev/net/tun cannot be opened: Operation not permitted")

    monkeypatch.setattr(tap, "connect", missing)
    assert (await say(frames.look)).told("/dev/net/tun")[0] == "failure"
