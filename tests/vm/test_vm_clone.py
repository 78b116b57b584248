"""Two clones of one machine, frozen while it waits for a host: each is what it was given, and nothing of the other.

What a clone brings along from its template would be the same in both: QEMU saves a network interface's MAC address
and a disk's size with a machine's state (traps 4 and 6), so neither is there when the template is made, or of any size.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from harness.machine import BOOT_S, Guest, Parts, launch, new_directory
from harness.tap import tap
from shim.journal import Journal
from shim.template import memory
from shim.vm.devices import Disk, Nic
from shim.vm.vm import VirtualMachine
from shim.vm.vsock_user import UserVsock

pytestmark = pytest.mark.timeout(240)

MIB = 1 << 20
BASE = 128 * MIB


async def launched(parts: Parts, work: Path, memory_fd: int, *, restored: bool) -> tuple[VirtualMachine, Path]:
    directory = new_directory(work)
    return await launch(parts.machine, parts, directory, memory_fd=memory_fd, restored=restored), directory


async def freeze(parts: Parts, work: Path, state: int) -> None:
    """Boot the machine until it waits for a host, and write it down."""
    memory_fd = memory.empty(BASE)
    vm, _directory = await launched(parts, work, memory_fd, restored=False)
    try:
        await vm.add_disk(Disk("agent", parts.agent))
        await vm.run()
        await vm.printed("agent: waiting for a host", BOOT_S)
        await vm.pause()
        await vm.save(state, BASE, 60)
    finally:
        await vm.kill(10)
    memory.take_down(memory_fd, BASE, state)
    os.close(memory_fd)


@asynccontextmanager
async def clone(parts: Parts, work: Path, state: int, *, mac: str, disk: Path, memory_mib: int) -> AsyncIterator[Guest]:
    """A running clone; `disk` is both its writable disk and, for reading, its first layer."""
    memory_fd = memory.copy(state, BASE)
    vm, directory = await launched(parts, work, memory_fd, restored=True)
    os.close(memory_fd)
    backend = UserVsock(
        daemon=parts.daemon,
        directory=directory / "vsock",
        credentials=parts.credentials,
        journal=Journal(directory),
    )
    guest = Guest(vm, backend, directory)
    try:
        await vm.restore(state, BASE, 30)
        await vm.add_vsock(backend, backend.prepare(30))
        await vm.add_disk(Disk("layer", disk))
        await vm.add_disk(Disk("own", disk, read_only=False))
        await vm.resize_memory(memory_mib)
        with tap() as fd:
            await vm.add_nic(Nic("eth0", mac, (fd,)))
        await guest.boot()
        yield guest
    finally:
        await vm.kill(10)
        guest.hang_up()


async def test_each_has_its_own(parts: Parts, work: Path) -> None:
    with (work / "state").open("w+b", buffering=0) as state:
        await freeze(parts, work, state.fileno())
        for number in (1, 2):
            mac, disk = f"02:71:65:6d:75:0{number}", work / f"own{number}"
            with disk.open("wb") as file:
                file.truncate(number * 8 * MIB)
            async with clone(parts, work, state.fileno(), mac=mac, disk=disk, memory_mib=number * 256) as guest:
                assert await guest.sees("macs") == [mac]
                # The drive that had the agent's disk in the template, and one that was empty.
                for drive in ("layer0", "writable0"):
                    assert (await guest.disk(drive))["bytes"] == number * 8 * MIB
