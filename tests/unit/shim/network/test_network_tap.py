"""TAPs beside the interfaces of namespaces: frames are read and written where QEMU would. Needs root."""

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import HostError, MissingPartError, QemuboxError, ResourceError, SpecError
from shim.network import netns, tap
from shim.network.survey import Interface, survey
from tests.unit.shim.network.places import Place
from tests.unit.shim.observe import same_fds

_HEADER = b"\0" * 10  # struct virtio_net_hdr
_ALL = 3  # ETH_P_ALL
_GUEST, _OTHER, _EVERYBODY = bytes.fromhex("020000000001"), bytes.fromhex("020000000077"), b"\xff" * 6
# A protocol for experiments, which no kernel sends by itself.
_TYPE = b"\x88\xb5"
_WAIT_MS = 10_000


def _eth0(place: Place) -> Interface:
    return next(each for each in survey(place.fd).interfaces if each.name == "eth0")


def _connect(place: Place, queues: int = 1) -> list[int]:
    return tap.connect(place.fd, _eth0(place), name="loqb-eth0", queues=queues)


def _close(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())


@contextlib.contextmanager
def _connected(place: Place, queues: int = 1) -> Iterator[list[int]]:
    fds = _connect(place, queues)
    try:
        yield fds
    finally:
        _close(fds)


@pytest.fixture
def wire(outside: Place) -> Iterator[socket.socket]:
    """Raw frames at the other end of eth0."""
    sock = netns.within(outside.fd, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL)))
    with sock:
        yield sock


def _arrived(fds: list[int], wanted: bytes) -> int:
    """The descriptor at which a frame arrives, once it has; what kernels say by themselves is passed over."""
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    while ready := poller.poll(_WAIT_MS):
        for fd, _ in ready:
            if os.read(fd, 65536)[len(_HEADER) :] == wanted:
                return fd
    raise AssertionError("the frame never arrived")


def _heard(wire: socket.socket, wanted: bytes) -> None:
    wire.settimeout(_WAIT_MS / 1000)
    while wire.recv(65536) != wanted:
        pass


@pytest.mark.parametrize("to", [_GUEST, _OTHER, _EVERYBODY], ids=["guest", "other", "everybody"])
@pytest.mark.parametrize("body", [b"x", b"y" * 46, b"z" * 1450], ids=len)
def test_frames_go_both_ways(wired: Place, wire: socket.socket, to: bytes, body: bytes) -> None:
    """Whomever they are for, and of any length."""
    with _connected(wired) as fds:
        wire.bind(("far", _ALL))
        frame = to + _OTHER + _TYPE + body
        wire.send(frame)
        assert _arrived(fds, frame) == fds[0]
        os.write(fds[0], _HEADER + to + _GUEST + _TYPE + body)
        _heard(wire, to + _GUEST + _TYPE + body)


def test_vlan_tags_survive(wired: Place, wire: socket.socket) -> None:
    tagged = b"\x81\x00\x20\x07" + _TYPE + b"v" * 64
    with _connected(wired) as fds:
        wire.bind(("far", _ALL))
        wire.send(_GUEST + _OTHER + tagged)
        _arrived(fds, _GUEST + _OTHER + tagged)
        os.write(fds[0], _HEADER + _OTHER + _GUEST + tagged)
        # Whoever listens on the other end is told of the tag beside the frame (packet(7), PACKET_AUXDATA).
        _heard(wire, _OTHER + _GUEST + _TYPE + b"v" * 64)


def test_the_namespace_itself_hears_nothing(wired: Place, wire: socket.socket) -> None:
    """It has the address, and does not answer in the guest's place."""
    wired.ip("address add 10.9.8.2/24 dev eth0")
    wire.bind(("far", _ALL))
    ours, its = socket.inet_aton("10.9.8.1"), socket.inet_aton("10.9.8.2")
    ask = _EVERYBODY + _OTHER + bytes.fromhex("0806 0001 0800 06 04 0001") + _OTHER + ours + bytes(6) + its
    answer = _OTHER + _GUEST + bytes.fromhex("0806 0001 0800 06 04 0002") + _GUEST + its + _OTHER + ours
    wire.send(ask)
    _heard(wire, answer)
    with _connected(wired) as fds:
        wire.send(ask)
        _arrived(fds, ask)
        os.write(fds[0], _HEADER + _OTHER + _GUEST + _TYPE + b"the guest's")
        # It comes after whatever the namespace would have said.
        wire.settimeout(_WAIT_MS / 1000)
        heard: list[bytes] = []
        while not heard or not heard[-1].endswith(b"the guest's"):
            heard.append(wire.recv(65536))
        assert answer not in heard


def test_what_the_tap_is_like(wired: Place) -> None:
    with _connected(wired):
        (link,) = wired.json("address show dev loqb-eth0")
        assert (link["mtu"], link["operstate"], link["addr_info"]) == (1450, "UNKNOWN", [])
        flags = link["flags"]
        assert isinstance(flags, list)
        assert "UP" in flags
        info = link["linkinfo"]
        assert isinstance(info, dict)
        assert info["info_data"] == {
            "type": "tap",
            "pi": False,
            "vnet_hdr": True,
            "multi_queue": False,
            "persist": False,
        }
        (eth0,) = wired.json("link show dev eth0")
        flags = eth0["flags"]
        assert isinstance(flags, list)
        assert "ALLMULTI" not in flags


def test_an_interface_that_filters_multicast_does_no_more(inside: Place, outside: Place) -> None:
    """What the guest joins its kernel does not tell this one."""
    outside.script("link add base type veth peer name other", "link set base up", "link set other up")
    outside.ip(f"link add link base name eth0 netns {inside.path} type macvlan mode bridge")
    inside.ip("link set eth0 up")
    with _connected(inside):
        (eth0,) = inside.json("link show dev eth0")
        flags = eth0["flags"]
        assert isinstance(flags, list)
        assert "ALLMULTI" in flags


def test_it_ends_with_its_last_descriptor(wired: Place) -> None:
    """And the interface is as before once that is told."""
    before = wired.tc("qdisc show")
    with same_fds():
        fds = _connect(wired)
        copy = os.dup(fds[0])
        _close(fds)
        assert "loqb-eth0" in wired.ip("link show")
        tap.disconnect(wired.fd, "eth0")  # too early: it stays
        assert "ingress" in wired.tc("qdisc show dev eth0")
        os.close(copy)
        assert "loqb-eth0" not in wired.ip("link show")
        assert "ingress" in wired.tc("qdisc show dev eth0")
        tap.disconnect(wired.fd, "eth0")
        assert wired.tc("qdisc show") == before
        tap.disconnect(wired.fd, "eth0")
        tap.disconnect(wired.fd, "missing")
    assert wired.tc("qdisc show") == before


def test_what_a_killed_one_has_left_is_taken(wired: Place, wire: socket.socket) -> None:
    """Nobody disconnected; the next machine of the namespace is none the worse."""
    _close(_connect(wired))
    with _connected(wired) as fds:
        wire.bind(("far", _ALL))
        wire.send(_GUEST + _OTHER + _TYPE + b"again")
        _arrived(fds, _GUEST + _OTHER + _TYPE + b"again")


def test_a_namespace_has_one_machine(wired: Place, wire: socket.socket) -> None:
    interface = _eth0(wired)
    with _connected(wired) as fds:
        for name in ("loqb-eth0", "other"):
            with same_fds(), pytest.raises(SpecError, match=r"eth0: .*(already|ingress qdisc)") as refused:
                tap.connect(wired.fd, interface, name=name, queues=1)
            assert refused.value.hint
        wire.bind(("far", _ALL))
        wire.send(_GUEST + _OTHER + _TYPE + b"still")
        _arrived(fds, _GUEST + _OTHER + _TYPE + b"still")


@pytest.mark.parametrize("queues", [1, 2])
def test_of_several_at_once_one_gets_it(wired: Place, queues: int) -> None:
    interface = _eth0(wired)
    for _ in range(5):
        barrier = threading.Barrier(4)
        got: list[list[int]] = []
        refused: list[QemuboxError] = []

        def attempt(
            barrier: threading.Barrier = barrier,
            got: list[list[int]] = got,
            refused: list[QemuboxError] = refused,
        ) -> None:
            barrier.wait(20)
            try:
                got.append(tap.connect(wired.fd, interface, name="loqb-eth0", queues=queues))
            except QemuboxError as error:
                refused.append(error)

        threads = [threading.Thread(target=attempt) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert (len(got), [type(each) for each in refused]) == (1, [SpecError] * 3)
        _close(got[0])


@pytest.mark.parametrize("kind", ["ingress", "clsact"])
def test_anothers_qdisc_is_neither_used_nor_removed(wired: Place, kind: str) -> None:
    wired.tc(f"qdisc add dev eth0 {kind}")
    wired.tc("filter add dev eth0 ingress protocol all u32 match u32 0 0 flowid 1:1")
    before = wired.tc("qdisc show"), wired.tc("filter show dev eth0 ingress")
    with same_fds(), pytest.raises(SpecError, match="eth0: another program has an ingress qdisc on it") as refused:
        _connect(wired)
    assert "tc qdisc show dev eth0" in refused.value.hint
    tap.disconnect(wired.fd, "eth0")
    assert (wired.tc("qdisc show"), wired.tc("filter show dev eth0 ingress")) == before
    assert "loqb-eth0" not in wired.ip("link show")


def test_several_queues(wired: Place, wire: socket.socket) -> None:
    with _connected(wired, 3) as fds:
        assert len(set(fds)) == 3
        wire.bind(("far", _ALL))
        wire.send(_GUEST + _OTHER + _TYPE + b"one of them")
        assert _arrived(fds, _GUEST + _OTHER + _TYPE + b"one of them") in fds
        for fd in fds:
            os.write(fd, _HEADER + _OTHER + _GUEST + _TYPE + b"%d" % fd)
            _heard(wire, _OTHER + _GUEST + _TYPE + b"%d" % fd)


def test_more_queues_than_a_tap_has(wired: Place) -> None:
    with same_fds(), pytest.raises(ResourceError, match="eth0: a TAP has no 257 queues"):
        _connect(wired, 257)
    assert "loqb-eth0" not in wired.ip("link show")


def test_an_interface_that_vanishes(wired: Place) -> None:
    interface = _eth0(wired)
    wired.ip("link delete eth0")
    with same_fds(), pytest.raises(HostError, match="interface eth0 cannot be connected to a TAP: No such device"):
        tap.connect(wired.fd, interface, name="loqb-eth0", queues=1)
    assert "loqb-eth0" not in wired.ip("link show")


@pytest.mark.parametrize("refused", ["_silence", "_lead_from", "_let_everything_in"])
def test_a_failure_at_any_step_leaves_nothing(wired: Place, monkeypatch: pytest.MonkeyPatch, refused: str) -> None:
    before = wired.tc("qdisc show")

    def refuse(*_arguments: object) -> None:
        raise OSError(5, "refused")

    monkeypatch.setattr(tap, refused, refuse)
    with same_fds(), pytest.raises(HostError, match="interface eth0 cannot be connected to a TAP: refused"):
        _connect(wired)
    assert wired.tc("qdisc show") == before


def test_a_host_without_taps(wired: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tap, "_TUN", str(tmp_path / "tun"))
    with pytest.raises(MissingPartError, match="/tun cannot be opened: No such file") as refused:
        _connect(wired)
    assert "module tun" in refused.value.hint


def test_the_hosts_help_if_there_is_any(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tap, "_VHOST_NET", str(tmp_path / "vhost-net"))
    assert tap.open_vhost(2) == []
    (tmp_path / "vhost-net").write_text("")
    with same_fds():
        fds = tap.open_vhost(2)
        assert len(fds) == 2
        _close(fds)
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.setattr(tap, "_VHOST_NET", str(tmp_path / "loop"))
    with pytest.raises(ResourceError, match="/loop cannot be opened"):
        tap.open_vhost(2)


@given(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=15), st.integers(1, 2**31))
def test_names(interface: str, index: int) -> None:
    """The kernel cuts longer ones off, and two would be one."""
    name = tap.name_of(interface, index)
    assert len(os.fsencode(name)) <= 15
    assert name.startswith("loqb-")
    assert name == f"loqb-{interface}" or name.endswith(f"~{index:x}")


def test_it_can_be_undone_by_what_imports_little() -> None:
    program = "import sys; from shim.network.tap import disconnect; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-ISc", f"sys_path = {sys.path!r}; import sys; sys.path[:] = sys_path; {program}"],
        capture_output=True,
        check=True,
        text=True,
        timeout=20,
    )
    assert (
        set(done.stdout.split()) & {"asyncio", "dataclasses", "pathlib", "pyroute2", "socket", "threading", "typing"}
        == set()
    )
