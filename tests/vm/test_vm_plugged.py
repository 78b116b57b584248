"""What is plugged into a machine, disks, memory and interfaces, as its guest and the host's files see it."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.machine import Start
from harness.tap import tap
from shim.errors import MachineError
from shim.rootfs import gpt
from shim.vm.devices import Disk, JoinedDisk, Nic
from shim.vm.machine import LAYER_DRIVES

pytestmark = pytest.mark.timeout(240)

MIB = 1 << 20
LAYERS = 100
MAC = "02:71:65:6d:75:01"


@pytest.fixture(scope="module")
def layers(work: Path) -> list[Path]:
    """Small EROFS images; each holds its own number."""
    source, images = work / "layer", []
    source.mkdir()
    for number in range(1, LAYERS + 1):
        (source / "name").write_text(f"layer {number}\n")
        (source / "data").write_bytes(bytes(number * 1000))
        images.append(work / f"{number}.erofs")
        subprocess.run(["mkfs.erofs", "-Enoinline_data", images[-1], source], check=True, capture_output=True)
    return images


def sparse(path: Path, mib: int) -> Path:
    with path.open("wb") as file:
        file.truncate(mib * MIB)
    return path


@pytest.mark.release
async def test_everything_that_was_plugged_in_is_there(start: Start, layers: list[Path], work: Path) -> None:
    """Three disks, one of a hundred files, memory, an interface: before the guest's first instruction."""
    table = gpt.table([layer.stat().st_size for layer in layers])
    async with start() as guest:
        vm = guest.vm
        seats = [
            await vm.add_disk(disk)
            for disk in (
                Disk("rw", sparse(work / "rw", 64), read_only=False),
                Disk("one", layers[0]),
                JoinedDisk("layers", (table.head, *layers, table.tail)),
                # There is one writable drive: this one is plugged in.
                Disk("rw2", sparse(work / "rw2", 32), read_only=False),
            )
        ]
        assert [seat.serial for seat in seats] == ["writable0", "layer1", "layer2", "rw2"]
        await vm.resize_memory(514)
        with tap() as fd:
            await vm.add_nic(Nic("eth0", MAC, (fd,)))
        await guest.boot()
        for seat, mib in ((seats[0], 64), (seats[3], 32)):
            assert await guest.disk(seat.serial) | {"name": ""} == {
                "name": "",
                "read_only": False,
                "bytes": mib * MIB,
                "partitions": 0,
            }
        one = await guest.disk(seats[1].serial)
        assert (one["read_only"], one["bytes"]) == (True, layers[0].stat().st_size)
        joined = await guest.disk(seats[2].serial)
        assert (joined["read_only"], joined["partitions"]) == (True, LAYERS)
        assert await guest.ask("layer_names", joined["name"], LAYERS) == [
            f"layer {number}" for number in range(1, LAYERS + 1)
        ]
        assert await guest.sees("macs") == [MAC]
        assert (await guest.sees("present"), await guest.sees("online")) == ("0-3", "0")
        memory = await guest.sees("memory_kib")
        assert isinstance(memory, int)
        assert 514 < memory >> 10 < 514 + 128


async def test_into_and_out_of_a_running_guest(start: Start, layers: list[Path]) -> None:
    """Into a drive that is there, and plugged in once those are full."""
    async with start() as guest:
        await guest.boot()

        async def size(serial: str) -> object:
            disks = await guest.sees("disks")
            assert isinstance(disks, dict)
            return disks.get(serial, {"bytes": 0})["bytes"]

        for number in range(len(LAYER_DRIVES) + 1):
            for _ in range(2):
                layer = layers[number]
                seat = await guest.vm.add_disk(Disk(f"d{number}", layer))
                async with asyncio.timeout(30):  # each question is a round trip to the guest
                    while await size(seat.serial) != layer.stat().st_size:
                        pass
                assert (
                    await guest.ask("layer_names_of", (await guest.disk(seat.serial))["name"]) == f"layer {number + 1}"
                )
                await guest.vm.remove_device(f"d{number}", 60)
                async with asyncio.timeout(30):
                    while await size(seat.serial):
                        pass
            await guest.vm.add_disk(Disk(f"d{number}", layers[number]))
        assert seat.serial == f"d{len(LAYER_DRIVES)}"


@pytest.mark.release
async def test_what_the_guest_writes_is_in_the_file_and_what_it_frees_is_not(start: Start, work: Path) -> None:
    image = sparse(work / "written", 16)
    async with start() as guest:
        seat = await guest.vm.add_disk(Disk("rw", image, read_only=False))
        await guest.boot()
        name = (await guest.disk(seat.serial))["name"]
        assert await guest.ask("write", name, 4 * MIB, 2 * MIB, 7) == ""
        with image.open("rb") as file:
            assert file.read(4 * MIB) == bytes(4 * MIB)
            assert file.read(2 * MIB) == b"\7" * 2 * MIB
        assert image.stat().st_blocks * 512 >= 2 * MIB
        await guest.ask("discard", name, 4 * MIB, 2 * MIB)
        assert image.stat().st_blocks * 512 < MIB


async def test_a_writable_disk_is_one_machines(start: Start, work: Path) -> None:
    image = sparse(work / "locked", 16)
    async with start() as first, start() as second:
        await first.vm.add_disk(Disk("rw", image, read_only=False))
        with pytest.raises(MachineError, match=r'qom-set.*"write" lock'):
            await second.vm.add_disk(Disk("rw", image, read_only=False))


@pytest.fixture
def small(work: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    directory = work / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", directory], check=True)
    yield directory
    subprocess.run(["umount", directory], check=True)


@pytest.mark.release
async def test_a_full_host_is_an_error_in_the_guest_and_nothing_worse(start: Start, small: Path) -> None:
    """QEMU's default would stop the machine, and whoever waits for it."""
    async with start() as guest:
        seat = await guest.vm.add_disk(Disk("rw", sparse(small / "image", 16), read_only=False))
        await guest.boot()
        name = (await guest.disk(seat.serial))["name"]
        assert await guest.ask("write", name, 0, 8 * MIB, 7) == "Input/output error"
        assert (await guest.disk(seat.serial))["bytes"] == 16 * MIB


async def test_memory_grows_and_shrinks(start: Start) -> None:
    async with start() as guest:
        await guest.boot()

        async def more_mib() -> float:
            memory = await guest.sees("memory_kib")
            assert isinstance(memory, int)
            return memory / 1024 - base

        base = 0.0
        base = await more_mib()
        for requested_mib in (130, 512, 1024):
            await guest.vm.resize_memory(requested_mib)
            async with asyncio.timeout(30):
                while await more_mib() != requested_mib:
                    pass
        # What the guest's kernel keeps for itself stays (docs/decisions/0003).
        for requested_mib in (512, 0):
            await guest.vm.resize_memory(requested_mib)
            async with asyncio.timeout(30):
                while await more_mib() > requested_mib + 64:
                    pass
