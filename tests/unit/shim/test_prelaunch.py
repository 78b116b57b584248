"""vsock gets ready while QEMU starts, and is nobody's but the machine's that it is plugged into."""

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from shim.errors import MachineError
from shim.hypervisor import Hypervisor
from shim.prelaunch import _vsock_beside
from shim.vm.vm import VirtualMachine
from shim.vm.vsock import KernelVsockDevice, VsockDevice

_DEVICE = KernelVsockDevice(cid=70000, vhost_fd=-1)


class Backend:
    """Gets ready when it may."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.begun = asyncio.Event()
        self.told: list[str] = []

    async def prepare(self, timeout_s: float) -> VsockDevice:
        self.begun.set()
        try:
            await self.may.wait()
        except asyncio.CancelledError:
            self.told.append("cancelled")
            raise
        self.told.append("ready")
        return _DEVICE

    async def close(self, timeout_s: float) -> None:
        self.told.append("closed")


class Vm:
    """Takes a backend."""

    def __init__(self) -> None:
        self.device: VsockDevice | None = None

    async def add_vsock(self, backend: Backend, prepared: "asyncio.Task[VsockDevice]") -> None:
        self.device = await prepared


def hypervisor(backend: Backend | None) -> Hypervisor:
    return cast("Hypervisor", SimpleNamespace(new_vsock=None if backend is None else lambda: backend))


async def test_it_gets_ready_meanwhile_and_belongs_to_the_machine_then() -> None:
    backend, vm = Backend(), Vm()
    async with _vsock_beside(hypervisor(backend)) as plug:
        async with asyncio.timeout(10):
            await backend.begun.wait()
        backend.may.set()
        await plug(cast("VirtualMachine", vm))
    assert vm.device is _DEVICE
    assert backend.told == ["ready"]


async def test_what_was_not_plugged_in_is_ended_and_closed() -> None:
    backend = Backend()

    async def fail() -> None:
        async with _vsock_beside(hypervisor(backend)):
            await backend.begun.wait()
            raise MachineError("it died")

    with pytest.raises(MachineError, match="it died"):
        await fail()
    assert backend.told == ["cancelled", "closed"]


async def test_a_machine_with_ports_needs_none() -> None:
    vm = Vm()
    async with _vsock_beside(hypervisor(None)) as plug:
        await plug(cast("VirtualMachine", vm))
    assert vm.device is None
