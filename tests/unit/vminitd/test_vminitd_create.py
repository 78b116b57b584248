"""A container is created while its machine's network is on its way, and not without it. crun and mounts are fakes."""

import asyncio
import json
import os
from pathlib import Path
from typing import cast

import pytest

from api import guest_pb2 as pb
from tests.unit.vminitd.dialled_host import DialledHost
from tests.unit.vminitd.fake_crun import LEAVE_BEHIND, World
from ttrpc import Context, StatusError
from vminitd import sysctl
from vminitd.capacity import Capacity
from vminitd.container import Container
from vminitd.containers import Containers
from vminitd.errors import CrunError, DeviceError, RequestError, UnknownError
from vminitd.files import File
from vminitd.network.network import Network
from vminitd.order import Order
from vminitd.rootfs import Plan, Rootfs
from vminitd.services.containers import ContainersService
from vminitd.services.machine import MachineService
from vminitd.state import State
from vminitd.stdio import Wish

OUT = b"o" * 16
SPEC = {"process": {"args": ["x"]}, "linux": {"sysctl": {"net.ipv4.ip_forward": "1"}}}
CREATES = 'case " $* " in *" create "*)\n' + LEAVE_BEHIND % "exec sleep 1000 >%s" + "esac\n"


class Only(Containers):
    """One container that is there."""

    def __init__(self, container: Container) -> None:
        self._container = container

    def get(self, container_id: str) -> Container:
        assert container_id == self._container.id
        return self._container


class Created:
    """A container that is being created, in a machine whose network comes when the test says so."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.network: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.asked = asyncio.Event()
        self.settings: list[dict[str, str]] = []
        self.alive = world.bundle / "alive"
        os.mkfifo(self.alive)
        world.behave(CREATES % self.alive)
        monkeypatch.setattr(Rootfs, "mount", _mount)
        monkeypatch.setattr(sysctl, "apply", self.settings.append)
        self.directory = world.bundle / "containers"
        self.directory.mkdir()
        machinery = world.machinery._replace(directory=str(self.directory), network=self.there)
        files = (File("0", b"before", 0o644, 0, 0),)
        self.order = Order("c", json.dumps(SPEC).encode(), Plan((), None, False), Wish(False, b"", OUT, b""), files)
        self.container = Container(machinery, self.order)

    async def begin(self) -> asyncio.Task[None]:
        """Returns when its process is there, and only the network is missing."""
        creating = asyncio.create_task(self.container.create(self.order))
        await self.asked.wait()
        self.process = await asyncio.to_thread(open, self.alive, "rb")
        return creating

    async def there(self) -> None:
        self.asked.set()
        await self.network

    async def delete(self, host: DialledHost) -> None:
        """As one that nobody has started."""
        host.connections[OUT].close()
        await self.container.delete("")
        self.process.close()

    async def comes_to_nothing(self, creating: asyncio.Task[None], host: DialledHost) -> BaseException:
        """What it fails with; neither process, nor what crun knows of it, nor file or stream is left."""
        await asyncio.wait([creating], timeout=10)
        assert creating.done()
        with self.process:  # which it holds open as long as it is there
            assert await asyncio.to_thread(self.process.read) == b""
        assert [call.split()[-3:] for call in self.world.calls()][1:] == [["delete", "--force", "c"]]
        assert [*self.directory.iterdir()] == []
        assert await host.hung_up(OUT)
        with pytest.raises((StatusError, asyncio.CancelledError)) as caught:
            creating.result()
        return caught.value


async def _mount(*_: object) -> None:
    """Nothing is mounted."""


@pytest.fixture
async def created(world: World, monkeypatch: pytest.MonkeyPatch) -> Created:
    return Created(world, monkeypatch)


async def test_crun_does_not_wait_for_the_network_but_create_does(created: Created, host: DialledHost) -> None:
    creating = await created.begin()
    assert len(created.world.calls()) == 1
    assert created.settings == []
    created.network.set_result(None)
    await creating
    assert created.settings == [{"net.ipv4.ip_forward": "1"}]
    assert created.container.init.pid
    await created.delete(host)


async def test_without_its_network_nothing_is_left_of_it(created: Created, host: DialledHost) -> None:
    creating = await created.begin()
    created.network.set_exception(DeviceError("interface eth0 (MAC x) did not appear within 30 s"))
    assert "interface eth0" in str(await created.comes_to_nothing(creating, host))
    assert created.settings == []


async def test_nor_when_nobody_waits_for_it_any_more(created: Created, host: DialledHost) -> None:
    creating = await created.begin()
    creating.cancel()
    assert isinstance(await created.comes_to_nothing(creating, host), asyncio.CancelledError)


async def test_nor_when_a_setting_of_its_network_is_refused(
    created: Created, host: DialledHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise RequestError("the sysctl net.ipv4.ip_forward cannot be set to '1'")

    monkeypatch.setattr(sysctl, "apply", refuse)
    creating = await created.begin()
    created.network.set_result(None)
    assert "net.ipv4.ip_forward" in str(await created.comes_to_nothing(creating, host))


async def test_what_crun_refuses_is_told_without_the_network(created: Created) -> None:
    created.world.behave('case " $* " in *" create "*) echo "no such program" >"$log"; exit 1;; esac\n')
    with pytest.raises(CrunError, match="no such program"):
        await created.container.create(created.order)
    assert not created.asked.is_set()
    created.network.cancel()


async def test_its_files_can_be_rewritten_as_long_as_it_is_there(created: Created, host: DialledHost) -> None:
    creating = await created.begin()
    created.network.set_result(None)
    await creating
    (path,) = (created.directory / "c" / "files").iterdir()
    created.container.rewrite([File("0", b"after", 0o600, 0, 0)])
    assert path.read_bytes() == b"after"
    with pytest.raises(UnknownError, match="without a file 'other'"):
        created.container.rewrite([File("other", b"", 0o600, 0, 0)])
    await created.delete(host)
    assert not Path(path).exists()


async def test_one_whose_machine_does_not_get_its_size_ends_where_it_is_started(
    created: Created, host: DialledHost, tmp_path: Path
) -> None:
    """The shim has it for one that runs, and waits for its end."""
    creating = await created.begin()
    created.network.set_result(None)
    await creating
    for name in ("present", "online"):
        (tmp_path / name).write_text("0")
    uevents = created.world.machinery.uevents
    capacity = Capacity(uevents, str(tmp_path))
    network = Network(uevents, capacity)
    service = ContainersService(Only(created.container), cast("MachineService", None), capacity, network)
    capacity.expect(2, 0)
    with pytest.raises(DeviceError, match="2 vCPUs are wanted"):
        await service.Start(pb.StartRequest(container_id="c"), Context())
    network.close()
    await asyncio.wait_for(created.container.init.gone.wait(), 10)
    assert created.container.init.state is State.STOPPED
    await created.delete(host)
