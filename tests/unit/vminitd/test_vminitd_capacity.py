"""vCPUs both ways, memory that comes while a container is made, and the limit that is less than what is in use."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from vminitd import capacity, deadlines
from vminitd.capacity import Capacity, parse_list, switches, wait_for_memory
from vminitd.cgroup import Cgroup
from vminitd.errors import DeviceError, KernelError, RequestError, StateError
from vminitd.spec import memory_limit, parse
from vminitd.uevent import Uevents

ONLINE = b"online@/devices/system/memory/memory32\0SUBSYSTEM=memory\0"


class Machine:
    """The kernel's files, and its events."""

    def __init__(self, directory: Path) -> None:
        self.kernel, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.setblocking(False)
        self.uevents = Uevents(ours)
        self.cpus = directory / "cpu"
        self.zoneinfo = directory / "zoneinfo"
        for number in range(4):
            (self.cpus / f"cpu{number}").mkdir(parents=True)
            (self.cpus / f"cpu{number}" / "online").touch()
        (self.cpus / "cpu0" / "online").unlink()  # as on x86
        (self.cpus / "present").write_text("0-3\n")
        self.online("0")
        self.has(128)

    def online(self, numbers: str) -> None:
        (self.cpus / "online").write_text(numbers)

    def has(self, mib: int) -> None:
        self.zoneinfo.write_text(f"Node 0, zone   Normal\n  present {mib * 256}\n")

    def switched(self) -> dict[int, str]:
        """What was written for each processor."""
        found = {n: (self.cpus / f"cpu{n}" / "online") for n in range(1, 4)}
        return {number: text for number, path in found.items() if (text := path.read_text())}


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    made = Machine(tmp_path)
    yield made
    made.uevents.close()
    made.kernel.close()


@pytest.mark.parametrize(
    ("online", "wanted", "switched"),
    [
        ("0", 1, []),
        ("0", 3, [(1, True), (2, True)]),
        ("0,3", 3, [(1, True)]),
        ("0-3", 2, [(3, False), (2, False)]),
        ("0,2-3", 1, [(3, False), (2, False)]),
        ("0-3", 4, []),
    ],
)
def test_which_are_switched(online: str, wanted: int, switched: list[tuple[int, bool]]) -> None:
    assert switches({0, 1, 2, 3}, parse_list(online), wanted) == switched


def test_how_many_there_may_be() -> None:
    with pytest.raises(DeviceError, match="5 vCPUs are wanted, but the machine has 4"):
        switches({0, 1, 2, 3}, {0}, 5)
    with pytest.raises(RequestError, match="at least 1"):
        switches({0, 1}, {0, 1}, 0)


async def test_on_and_off(machine: Machine) -> None:
    cpus = Capacity(machine.uevents, str(machine.cpus))
    await cpus.set_cpus_online(3)
    assert machine.switched() == {1: "1", 2: "1"}
    machine.online("0-2")
    await cpus.set_cpus_online(2)
    assert machine.switched() == {1: "1", 2: "0"}


async def test_a_kernel_that_refuses_is_quoted(machine: Machine) -> None:
    (machine.cpus / "cpu1" / "online").unlink()
    with pytest.raises(KernelError, match="vCPU 1 does not go online: No such file"):
        await Capacity(machine.uevents, str(machine.cpus)).set_cpus_online(2)


async def test_memory_is_looked_for_after_each_event_and_not_between(machine: Machine) -> None:
    waiting = asyncio.create_task(wait_for_memory(machine.uevents, 640, str(machine.zoneinfo)))
    for mib in (256, 384, 512):
        machine.has(mib)
        machine.kernel.send(ONLINE)
        await asyncio.wait((waiting,), timeout=0.02)
        assert not waiting.done()
    machine.has(638)  # the first MiB has holes
    done, _ = await asyncio.wait((waiting,), timeout=0.1)
    assert not done
    machine.kernel.send(ONLINE)
    await asyncio.wait_for(waiting, 10)


async def test_memory_that_never_comes_is_told_with_the_numbers(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "CAPACITY", 0.05)
    machine.has(256)
    with pytest.raises(DeviceError, match=r"of 640 MiB of memory there are 256 MiB after 0\.05 s"):
        await wait_for_memory(machine.uevents, 640, str(machine.zoneinfo))


async def test_whoever_starts_a_process_waits_for_what_was_expected(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived = asyncio.Event()

    async def wait(uevents: Uevents, wanted_mib: int) -> None:
        assert (uevents, wanted_mib) == (machine.uevents, 640)
        await arrived.wait()

    monkeypatch.setattr(capacity, "wait_for_memory", wait)
    ours = Capacity(machine.uevents, str(machine.cpus))
    await ours.there()  # nothing is expected
    ours.expect(2, 640)
    starts = [asyncio.create_task(ours.there()) for _ in range(2)]
    done, _ = await asyncio.wait(starts, timeout=0.1)
    assert not done
    assert machine.switched() == {1: "1"}
    starts[0].cancel()  # the others wait on
    arrived.set()
    await asyncio.wait_for(starts[1], 10)
    await ours.there()


async def test_what_does_not_come_fails_each_start(machine: Machine) -> None:
    ours = Capacity(machine.uevents, str(machine.cpus))
    ours.expect(9, 0)
    for _ in range(2):
        with pytest.raises(DeviceError, match="9 vCPUs"):
            await ours.there()


@pytest.fixture
def cgroup(tmp_path: Path) -> Cgroup:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "memory.high").write_text("max\n")
    (tmp_path / "c" / "memory.current").write_text(f"{300 << 20}\n")
    return Cgroup("/c", str(tmp_path))


async def test_while_a_limit_is_set_nobody_gets_beyond_it(cgroup: Cgroup, tmp_path: Path) -> None:
    high = tmp_path / "c" / "memory.high"
    async with cgroup.held_below(301 << 20):
        assert high.read_text().startswith(str(301 << 20))
    assert high.read_text().startswith("max")


async def test_a_limit_below_what_is_in_use_is_refused_with_the_numbers(cgroup: Cgroup, tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"uses 300\.0 MiB of memory: it cannot be limited to 256\.0 MiB"):
        async with cgroup.held_below(256 << 20):
            pytest.fail("the limit was set")
    assert (tmp_path / "c" / "memory.high").read_text().startswith("max")


async def test_a_cgroup_that_is_gone_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match=r"cannot set memory\.high of /c"):
        async with Cgroup("/c", str(tmp_path)).held_below(1):
            pytest.fail("there is no such group")


@pytest.mark.parametrize(("text", "limit"), [("{}", 0), ("null", 0), ('{"limit": -1}', 0), ('{"limit": 5}', 5)])
def test_the_memory_limit_of_resources(text: str, limit: int) -> None:
    assert memory_limit(parse(b'{"memory": %s}' % text.encode(), "the resources")) == limit


@pytest.mark.parametrize("text", ["0", "true", '"1G"', "1.5", "[1]"])
def test_a_memory_limit_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="not a number of bytes"):
        memory_limit(parse(b'{"memory": {"limit": %s}}' % text.encode(), "the resources"))
