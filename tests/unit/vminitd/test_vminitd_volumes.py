"""The share with the host's directories: found by its tag, mounted once it is there, unmounted before the rest."""

import asyncio
import os
from pathlib import Path
from typing import cast

import pytest

from vminitd import volumes
from vminitd.errors import MountError
from vminitd.uevent import Uevents
from vminitd.volumes import Share, find


class Kernel:
    """What was mounted and unmounted, in order; mounting can be made to fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[tuple[str, ...]] = []
        self.refuses = False
        monkeypatch.setattr(volumes, "mount", self._mount)
        monkeypatch.setattr(volumes, "unmount_one", self._unmount)

    def _mount(self, source: str, target: str, fstype: str) -> None:
        assert os.path.isdir(target)
        if self.refuses:
            raise OSError(22, "Invalid argument")
        self.done.append((source, target, fstype))

    def _unmount(self, target: str) -> bool:
        self.done.append((target,))
        return False


class Devices:
    """Tells of a device whenever the test says so, as `Uevents` does."""

    def __init__(self) -> None:
        self.there = asyncio.Event()

    async def until(self, _look: object, what: str, _deadline_s: float) -> str:
        assert what == "the virtiofs device 'volumes'"
        await self.there.wait()
        return "0"


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


async def test_it_is_mounted_once_its_device_is_there(kernel: Kernel, tmp_path: Path) -> None:
    share, devices = Share(str(tmp_path)), Devices()
    mounting = asyncio.create_task(share.mount(cast("Uevents", devices), "volumes"))
    await asyncio.sleep(0)
    assert kernel.done == []
    devices.there.set()
    await mounting
    path = f"{tmp_path}/volumes"
    assert kernel.done == [("volumes", path, "virtiofs")]
    share.unmount()
    assert kernel.done[1:] == [(path,)]
    assert os.listdir(tmp_path) == []
    share.unmount()
    assert len(kernel.done) == 2


async def test_none_is_nothing(kernel: Kernel, tmp_path: Path) -> None:
    share = Share(str(tmp_path))
    await share.mount(cast("Uevents", None), "")
    share.unmount()
    assert kernel.done == []
    assert os.listdir(tmp_path) == []


async def test_one_that_cannot_be_mounted_leaves_nothing(kernel: Kernel, tmp_path: Path) -> None:
    kernel.refuses = True
    share, devices = Share(str(tmp_path)), Devices()
    devices.there.set()
    with pytest.raises(MountError, match="cannot mount the volumes: Invalid argument"):
        await share.mount(cast("Uevents", devices), "volumes")
    share.unmount()
    assert kernel.done == []
    assert os.listdir(tmp_path) == []


def test_a_device_is_found_by_its_tag(tmp_path: Path) -> None:
    assert find("volumes", str(tmp_path / "nothing")) is None
    for name, tag in (("0", "other\n"), ("1", "volumes\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tag").write_text(tag)
    (tmp_path / "2").mkdir()  # it is just being made, or taken away
    assert find("volumes", str(tmp_path)) == "1"
    assert find("volume", str(tmp_path)) is None
