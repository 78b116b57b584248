"""The ways to the guest, by what stands in their places."""

from pathlib import Path

import pytest

from shim.check import vsock
from shim.errors import MissingPartError
from tests.unit.shim.check.conftest import FakeHost, Say


class Backend:
    """In the kernel's place."""

    error: MissingPartError | None = None
    closed = 0

    async def prepare(self, _timeout_s: float) -> None:
        if self.error:
            raise self.error

    async def close(self, _timeout_s: float) -> None:
        type(self).closed += 1


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> type[Backend]:
    Backend.error, Backend.closed = None, 0
    monkeypatch.setattr(vsock, "KernelVsock", Backend)
    return Backend


async def test_the_kernels(backend: type[Backend], fake: FakeHost, say: Say) -> None:
    fake.configure("vsock", mode="kernel")
    assert [line.level for line in await say(vsock.look)] == ["ok"]
    assert backend.closed == 1


async def test_the_kernels_that_is_not_there(backend: type[Backend], fake: FakeHost, say: Say) -> None:
    """It is asked for by name, so nothing takes its place."""
    fake.configure("vsock", mode="kernel")
    fake.put("/sys/module/vhost_vsock/x")
    backend.error = MissingPartError("/dev/vhost-vsock: No such device")
    (line,) = await say(vsock.look)
    assert (line.level, line.found, line.mend) == (
        "failure",
        "/dev/vhost-vsock: No such device",
        "modprobe vhost_vsock",
    )
    assert backend.closed == 1


async def test_what_takes_its_place(fake: FakeHost, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shim.vm.vsock.KERNEL_DEVICE", "/nowhere/vhost-vsock")
    (line,) = await say(vsock.look)
    assert line.level == "warning"
    assert "CONFIG_VHOST_VSOCK" in line.mend
    fake.configure("vsock", mode="serial")
    assert [line.level for line in await say(vsock.look)] == ["ok"]


@pytest.mark.parametrize(
    ("script", "level"), [('echo "vhost-device-vsock 0.2.0"', "ok"), ("exit 1", "failure"), (None, "failure")]
)
async def test_the_daemon(script: str | None, level: str, fake: FakeHost, tmp_path: Path, say: Say) -> None:
    if script:
        fake.program("vhost-device-vsock", script)
    fake.configure("vsock", mode="user")
    assert [line.level for line in await say(vsock.look)] == [level]
