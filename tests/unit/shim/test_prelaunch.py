"""A machine before its container: vsock gets ready meanwhile, and it must be one that the container can have."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from shim.config import Config
from shim.errors import MachineError
from shim.host import bounds
from shim.hypervisor import Hypervisor
from shim.identity import Identity
from shim.journal import Journal
from shim.log import Logger
from shim.prelaunch import Prelaunch, _vsock_beside
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


class Launching:
    """Machines that `Prelaunch` believes to have launched, each with or without shared memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, log: Logger) -> None:
        self.killed: list[int] = []
        self.prelaunch = Prelaunch(
            Config(), Identity("/a", "ns", "c"), Path("/"), bounds=bounds(Config()), journal=Journal("/"), log=log
        )
        self._launched = 0
        monkeypatch.setattr(self.prelaunch, "_launch", self._launch)

    async def _launch(self, *, template: bool, shared_memory: bool) -> object:
        self._launched += 1
        number = self._launched

        async def kill(_timeout_s: float) -> None:
            self.killed.append(number)

        machine = SimpleNamespace(shared_memory=shared_memory)
        vm = SimpleNamespace(kill=kill, number=number)
        return SimpleNamespace(vm=vm, hypervisor=SimpleNamespace(machine=machine), template="t" if template else "")


@pytest.mark.parametrize(
    ("begun", "wanted", "number", "shared"),
    [(False, False, 1, False), (True, True, 1, True), (True, False, 1, True), (False, True, 2, True)],
)
async def test_a_machine_without_shared_memory_gives_way_to_one_that_has_it(
    monkeypatch: pytest.MonkeyPatch, begun: bool, wanted: bool, number: int, shared: bool
) -> None:
    """Where volumes come that were not expected. One that has it for nothing will do."""
    world = Launching(monkeypatch, cast("Logger", SimpleNamespace(info=lambda _text: None)))
    world.prelaunch.begin(shared_memory=begun)
    launched = cast("SimpleNamespace", await world.prelaunch.take(shared_memory=wanted))
    assert (launched.vm.number, launched.hypervisor.machine.shared_memory) == (number, shared)
    assert world.killed == list(range(1, number))
    cold = cast("SimpleNamespace", await world.prelaunch.take_cold(shared_memory=wanted))
    assert (cold.template, cold.hypervisor.machine.shared_memory) == ("", wanted)
