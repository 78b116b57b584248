"""qemubox.guest.v1.Containers."""

from collections.abc import Iterable

from google.protobuf.empty_pb2 import Empty
from google.protobuf.timestamp_pb2 import Timestamp

from api import guest_pb2 as pb
from api.guest_ttrpc import ContainersBase
from ttrpc import Context
from vminitd import identity, milestones, trace
from vminitd.block_volumes import BlockVolume
from vminitd.capacity import Capacity
from vminitd.containers import Containers
from vminitd.disks import Layer
from vminitd.files import File
from vminitd.network.network import Network
from vminitd.order import Order
from vminitd.owners import Owners
from vminitd.rootfs import Plan
from vminitd.services.machine import MachineService
from vminitd.stdio import Wish

_SECOND_NS = 1_000_000_000


class ContainersService(ContainersBase):
    """Calls for one container may come at the same time; its states decide which of them make sense."""

    def __init__(self, containers: Containers, machine: MachineService, capacity: Capacity, network: Network) -> None:
        self._containers = containers
        self._machine = machine
        self._capacity = capacity
        self._network = network

    async def Create(self, request: pb.CreateRequest, context: Context) -> pb.CreateResponse:
        # It may have been sent along with Configure. Nothing of a container is made by a machine that is a twin.
        began_ns = milestones.now_ns()
        await self._machine.identified.wait()
        container = await self._containers.create(order(request))
        response = pb.CreateResponse(pid=container.init.pid)
        if trace.is_traced(context):
            trace.tell(response, began_ns)
        return response

    async def Exec(self, request: pb.ExecRequest, context: Context) -> Empty:
        container = self._containers.get(request.container_id)
        container.add(request.exec_id, request.process, wish(request.stdio))
        return Empty()

    async def Start(self, request: pb.StartRequest, context: Context) -> pb.StartResponse:
        began_ns = milestones.now_ns()
        if request.wall_clock_ns:
            identity.set_clock(request.wall_clock_ns)
        if request.HasField("network"):
            self._network.expect(request.network)
        container = self._containers.get(request.container_id)
        try:
            await self._capacity.there()
            await self._network.complete()
        except BaseException:
            container.cannot_start(request.exec_id)
            raise
        response = pb.StartResponse(pid=await container.start(request.exec_id))
        if not request.exec_id or trace.is_traced(context):
            trace.tell(response, began_ns)
        return response

    async def Wait(self, request: pb.ProcessRequest, context: Context) -> pb.WaitResponse:
        ended = await self._containers.get(request.container_id).process(request.exec_id).wait()
        seconds, nanos = divmod(ended.at_ns, _SECOND_NS)
        return pb.WaitResponse(
            exit_status=ended.status,
            exited_at=Timestamp(seconds=seconds, nanos=nanos),
            oom_kills=ended.oom_kills,
        )

    async def Kill(self, request: pb.KillRequest, context: Context) -> Empty:
        container = self._containers.get(request.container_id)
        await container.kill(request.exec_id, request.signal, everyone=request.all)
        return Empty()

    async def Delete(self, request: pb.ProcessRequest, context: Context) -> Empty:
        await self._containers.delete(request.container_id, request.exec_id)
        return Empty()

    async def Pids(self, request: pb.ContainerRequest, context: Context) -> pb.PidsResponse:
        pids = self._containers.get(request.container_id).pids()
        return pb.PidsResponse(processes=[pb.Process(pid=pid, exec_id=exec_id) for pid, exec_id in pids])

    async def ResizePty(self, request: pb.ResizePtyRequest, context: Context) -> Empty:
        process = self._containers.get(request.container_id).process(request.exec_id)
        process.resize(request.width, request.height)
        return Empty()

    async def Pause(self, request: pb.ContainerRequest, context: Context) -> Empty:
        await self._containers.get(request.container_id).pause()
        return Empty()

    async def Resume(self, request: pb.ContainerRequest, context: Context) -> Empty:
        await self._containers.get(request.container_id).resume()
        return Empty()

    async def Update(self, request: pb.UpdateRequest, context: Context) -> Empty:
        await self._capacity.there()
        await self._containers.get(request.container_id).update(request.resources)
        return Empty()

    async def Stats(self, request: pb.ContainerRequest, context: Context) -> pb.StatsResponse:
        return pb.StatsResponse(files=self._containers.get(request.container_id).statistics())

    async def OomKills(self, request: pb.OomKillsRequest, context: Context) -> pb.OomKillsResponse:
        return pb.OomKillsResponse(kills=await self._containers.get(request.container_id).oom_kills(request.known))

    async def Rewrite(self, request: pb.RewriteRequest, context: Context) -> Empty:
        self._containers.get(request.container_id).rewrite(files(request.files))
        return Empty()


def order(request: pb.CreateRequest) -> Order:
    """The request as a value of vminitd's own."""
    return Order(
        container_id=request.container_id,
        spec=request.spec,
        rootfs=Plan(
            lower=tuple(layer(each) for each in request.rootfs.lower),
            writable=layer(request.rootfs.writable) if request.rootfs.HasField("writable") else None,
            whole=request.rootfs.whole,
            mapped=request.rootfs.mapped,
            owners=Owners(request.rootfs.uid_map, request.rootfs.gid_map),
        ),
        stdio=wish(request.stdio),
        files=files(request.files),
        block_volumes=tuple(BlockVolume(each.name, layer(each.disk)) for each in request.block_volumes),
        volumes=request.volumes,
    )


def files(sent: Iterable[pb.File]) -> tuple[File, ...]:
    """Files as values of vminitd's own."""
    return tuple(File(each.name, each.content, each.mode, each.uid, each.gid, each.dispensable) for each in sent)


def layer(message: pb.Layer) -> Layer:
    """A Layer as a value of vminitd's own."""
    return Layer(message.serial, message.partition, message.fstype, tuple(message.options), message.disk_bytes)


def wish(message: pb.Stdio) -> Wish:
    """A Stdio as a value of vminitd's own."""
    return Wish(message.terminal, message.stdin, message.stdout, message.stderr)
