"""One container's network on the host, from its namespace to the TAPs that its machine gets.

    open        in Create: there is a namespace
    connect     once hooks have run: CNI, if it is ours to ask, then a TAP beside each interface
    settled     QEMU has its own copies of the TAPs' descriptors
    begin       in Start: the client may have connected the container meanwhile, by the task's pid (`ctr run --cni`,
                docker); then that counts, and what we made gives way
    close       all of it undone, in reverse; whatever was reached

Until Start the anchor is in an empty namespace where nobody has named one: CNI would find its `eth0` there already if
ours were in the same. The network of the configuration is made beside that in a namespace of its own, so that the
machine has it from the first instruction on, and Start moves the anchor there.

Each step is journaled before it is taken, so that `delete` can do what `close` would have.
"""

import asyncio
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from api import guest_pb2
from cni import Attachment, CniError, Dns, NetworkList, PluginMissing, load
from shim import deadlines, inspection
from shim.anchor import Anchor
from shim.config import Config
from shim.errors import HostError, MissingPartError, SpecError
from shim.identity import Identity
from shim.journal import Journal
from shim.log import Logger
from shim.network import counters, names, netns, tap, tuning
from shim.network.attached import CONTAINER_ID_PREFIX, FILE_NAME, Attached, Plugins, attach, detach
from shim.network.connection import Connection
from shim.network.counters import Counters
from shim.network.forward import Forwarding
from shim.network.plan import Plan, Way
from shim.network.survey import Interface, Survey, survey
from shim.sandbox import Sandbox
from shim.vm.devices import Nic

# What CNI is to call the interface, as in a pod.
_INTERFACE: Final = "eth0"
# As many vCPUs as take turns with one device; more queues cost memory and interrupts.
_QUEUES_LIMIT: Final = 8


class ContainerNetwork:
    """`directory` is the shim's own, `hostname` the container's. Where the plan has no network nothing is done."""

    def __init__(
        self,
        plan: Plan,
        identity: Identity,
        directory: Path,
        *,
        hostname: str,
        config: Config,
        journal: Journal,
        log: Logger,
    ) -> None:
        # The open namespace, -1 where there is none: then the anchor makes one of its own.
        self.fd = -1
        # Where it is; empty where there is none.
        self.path = plan.path
        self.connection = Connection()
        # Content of the files of names, where they are ours to make, by their place in the container.
        self.names: Mapping[str, bytes] = {}
        self._plan = plan
        self._identity = identity
        self._directory = directory
        self._hostname = hostname
        self._config = config
        self._journal = journal
        self._log = log
        self._interfaces: tuple[Interface, ...] = ()
        self._network: NetworkList | None = None
        self._taps: list[int] = []
        self._forwarding: Forwarding | None = None
        self._undo = AsyncExitStack()

    @property
    def anchor_fd(self) -> int:
        """The namespace in which the anchor is to be from Create on; -1: one of its own."""
        return -1 if self._plan.way is Way.CONFIGURED else self.fd

    async def open(self) -> None:
        """Make the namespace, or open the one that was given.

        Raises SpecError for one that is none, MissingPartError for a network that there is not, HostError.
        """
        match self._plan.way:
            case Way.NONE:
                return
            case Way.GIVEN:
                self.fd = await asyncio.to_thread(netns.open_given, self.path)
            case Way.HOOKS:
                await self._make()
            case Way.CONFIGURED:
                self._network = await asyncio.to_thread(self._load)
                await self._make()
        self._undo.callback(self._let_go)

    async def connect(self, vcpus: int) -> None:
        """Have CNI make the network, where that is ours, and lead every interface of the namespace to a TAP.

        Raises HostError for CNI's errors, SpecError for what somebody has made and cannot be led into a machine,
        ResourceError.
        """
        if self.fd < 0:
            return
        if self._network is None:
            await self._lead_all(await asyncio.to_thread(survey, self.fd), vcpus)
            return
        await self._attach(self._network)
        try:
            await self._lead_all(await asyncio.to_thread(survey, self.fd), vcpus)
        except SpecError as error:
            # Not what the container asks for, but what the plugins have made.
            network = f"CNI network {self._network.name!r} ({self._network.source})"
            raise HostError(f"{network}: {error.message}", hint=error.hint) from error
        self.connection.message.sysctls.update(tuning.sysctls(self._network, _INTERFACE))

    def settled(self) -> None:
        """Close what QEMU has copies of by now: a TAP ends with its last descriptor."""
        while self._taps:
            os.close(self._taps.pop())

    async def begin(self, anchor: Anchor, sandbox: Sandbox, vcpus: int) -> guest_pb2.NetworkConfig | None:
        """Settle which network it is; what the guest is to make of one that is new to it.

        From here on connections to localhost in its namespace are the guest's, until `stop_forwarding`. Raises as
        `connect`, and MachineError.
        """
        message = None
        if self._plan.way is Way.CONFIGURED or not self.connection.nics:
            message = await self._take_what_came(anchor, sandbox, vcpus)
        if self._plan.way is Way.CONFIGURED and message is None:
            await self._move(anchor)
        anchor.settle()
        if self.fd >= 0:
            self._forwarding = await Forwarding.open(self.fd, sandbox.forward, self._log)
        return message

    def interfaces(self) -> dict[str, inspection.Interface]:
        """Those of the machine, to be shown."""
        return {
            each.name: inspection.Interface(
                each.mac,
                tap.name_of(each.name, each.index),
                queues=len(nic.tap_fds),
                vhost=bool(nic.vhost_fds),
            )
            for each, nic in zip(self._interfaces, self.connection.nics, strict=True)
        }

    def counters(self) -> list[Counters]:
        """What went over each interface by now. Blocks. Raises HostError."""
        return counters.read(self.fd) if self.fd >= 0 else []

    async def stop_forwarding(self) -> None:
        """Reset those that are carried, and take no more."""
        if self._forwarding is not None:
            await self._forwarding.close()

    async def close(self) -> None:
        """Undo it, last made first. What fails is logged, and stays in the journal for the shim's end."""
        try:
            await self._undo.aclose()
        except (CniError, HostError, OSError) as error:
            self._log.warning("the network was not taken down", error=str(error))

    async def _take_what_came(self, anchor: Anchor, sandbox: Sandbox, vcpus: int) -> guest_pb2.NetworkConfig | None:
        """Connect what the client has made in the anchor's own namespace since Create, in place of what there is."""
        async with AsyncExitStack() as opened:
            fd = await asyncio.to_thread(_open_namespace_of, anchor)
            opened.callback(os.close, fd)
            found = await asyncio.to_thread(survey, fd)
            if not found.interfaces:
                return None
            for nic in self.connection.nics:
                await sandbox.unplug(nic)
            await self.close()
            self.connection, self._interfaces = Connection(), ()
            self.path = f"/proc/{anchor.pid}/ns/net"
            self.fd = os.dup(fd)
            self._undo.callback(self._let_go)
        await self._lead_all(found, vcpus)
        for nic in self.connection.nics:
            await sandbox.plug(nic)
        self.settled()
        addresses = [address.address for interface in found.interfaces for address in interface.addresses]
        self.names = await names.for_container(self._hostname, addresses, Dns(), self._log)
        return self.connection.message

    async def _move(self, anchor: Anchor) -> None:
        try:
            await anchor.move(self.fd, deadline_s=deadlines.ANCHOR_S)
        except (OSError, TimeoutError) as error:
            raise HostError(f"the anchor process does not go into {self.path}: {error}") from error

    def _let_go(self) -> None:
        os.close(self.fd)
        self.fd = -1

    def _load(self) -> NetworkList:
        directory = Path(self._config.network.conf_dir)
        try:
            return load(directory, self._plan.name)
        except CniError as error:
            raise MissingPartError(
                f"network.name = {self._plan.name!r}: {error}",
                hint='name one that is there, or "none", in the configuration',
            ) from error

    async def _make(self) -> None:
        path = Path(netns.DIRECTORY, f"{netns.PREFIX}{self._identity.key}")
        self.path = str(path)
        self._journal.record("netns", path=self.path)
        self._undo.push_async_callback(asyncio.to_thread, netns.remove, path)
        self.fd = await asyncio.to_thread(netns.make, path)

    async def _attach(self, network: NetworkList) -> None:
        container_id = f"{CONTAINER_ID_PREFIX}{self._identity.key}"
        attachment = Attachment(container_id, self.path, _INTERFACE)
        self._undo.push_async_callback(detach, self._directory / FILE_NAME)
        try:
            result = await attach(
                self._directory, self._journal, Attached(network, attachment, Plugins.configured(self._config))
            )
        except PluginMissing as error:
            raise MissingPartError(str(error)) from error
        except CniError as error:
            raise HostError(str(error)) from error
        addresses = [str(address.address) for address in result.ips]
        self.names = await names.for_container(self._hostname, addresses, result.dns, self._log)

    async def _lead_all(self, found: Survey, vcpus: int) -> None:
        queues = min(vcpus, _QUEUES_LIMIT)
        self._undo.callback(self.settled)
        nics = [await self._lead(interface, queues) for interface in found.interfaces]
        self._interfaces = found.interfaces
        self.connection = Connection(tuple(nics), found.message(queues))

    async def _lead(self, interface: Interface, queues: int) -> Nic:
        if self._plan.way is Way.GIVEN:  # it outlives us, and what we put into it must not
            inode = os.fstat(self.fd).st_ino
            self._journal.record("ingress", path=self.path, link=interface.name, inode=inode)
            self._undo.push_async_callback(asyncio.to_thread, tap.disconnect, self.fd, interface.name)
        name = tap.name_of(interface.name, interface.index)
        fds = await asyncio.to_thread(tap.connect, self.fd, interface, name=name, queues=queues)
        self._taps += fds
        vhost = [] if self._config.network.vhost == "off" else await asyncio.to_thread(tap.open_vhost, queues)
        self._taps += vhost
        return Nic(f"nic{interface.index}", interface.mac, tuple(fds), tuple(vhost), interface.mtu)


def _open_namespace_of(anchor: Anchor) -> int:
    """The network namespace that the anchor is in. Blocks. Raises HostError."""
    try:
        return os.open(f"/proc/{anchor.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"the anchor process has ended: {error.strerror}") from error
