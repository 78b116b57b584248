"""TUN, tc and BPF, by what every container's network is made of, in a network namespace of our own.

A veth pair, a TAP beside one end, and a frame each way: that is `shim.network.tap`, as the shim calls it.
"""

import contextlib
import errno
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Final

from netlink import rtnl
from netlink.attribute import attribute, nested, string
from netlink.message import NLM_F_CREATE, NLM_F_EXCL
from shim.check import scratch
from shim.check.host import Host
from shim.check.line import Report
from shim.check.module import Module, module
from shim.check.thread import in_thread
from shim.errors import HostError, MissingPartError, QemuboxError
from shim.network import lookup, netns, tap
from shim.network.rtnetlink import Rtnetlink
from shim.network.survey import Interface, survey

_INSIDE, _OUTSIDE = "check0", "check1"
_VETH_INFO_PEER: Final = 1  # linux/veth.h
_GUEST, _OTHER = bytes.fromhex("020000716263"), bytes.fromhex("020000716264")
_TYPE: Final = b"\x88\xb5"  # for experiments: no kernel sends it by itself
_HEADER: Final = bytes(10)  # struct virtio_net_hdr
_ALL: Final = 3  # ETH_P_ALL
_WAIT_S: Final = 2.0
_TC: Final = ("sch_ingress", "cls_u32", "act_mirred")


async def look(host: Host, report: Report) -> None:
    """See the module."""
    async with scratch.network_namespace() as fd:
        try:
            await in_thread(lambda: netns.within(fd, _make_pair))
        except OSError as error:
            report.failure(
                "veth", f"no interface of the kind veth can be made: {error.strerror}", _load(host, ("veth",))
            )
            return
        await _tap(host, report, fd)
        await _bpf(report, fd)


def _make_pair() -> None:
    """Both ends, up, in the namespace of this thread."""
    peer = attribute(_VETH_INFO_PEER, rtnl.link(parts=string(rtnl.IFLA_IFNAME, _OUTSIDE)))
    info = nested(rtnl.IFLA_LINKINFO, string(rtnl.IFLA_INFO_KIND, "veth"), nested(rtnl.IFLA_INFO_DATA, peer))
    with Rtnetlink() as kernel:
        parts = string(rtnl.IFLA_IFNAME, _INSIDE) + info
        kernel.change(rtnl.RTM_NEWLINK, rtnl.link(parts=parts), NLM_F_CREATE | NLM_F_EXCL)
        for name in (_INSIDE, _OUTSIDE):
            index = socket.if_nametoindex(name)
            kernel.change(rtnl.RTM_NEWLINK, rtnl.link(index, flags=rtnl.IFF_UP, change=rtnl.IFF_UP))


async def _tap(host: Host, report: Report, fd: int) -> None:
    try:
        interface = next(each for each in (await in_thread(lambda: survey(fd))).interfaces if each.name == _INSIDE)
        await in_thread(lambda: _carry(fd, interface))
    except MissingPartError as error:
        report.failure("/dev/net/tun", error.message, _load(host, ("tun",)))
    except QemuboxError as error:
        reason = f"{error.message}: no container has a network"
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EPERM:
            report.failure("tc", reason, "run it where root may administer networks (CAP_NET_ADMIN)")
        else:
            report.failure("tc", reason, _load(host, _TC))
    else:
        report.ok("/dev/net/tun", "a TAP can be made")
        report.ok("tc", "ingress, u32 and mirred carry a frame each way")


def _carry(fd: int, interface: Interface) -> None:
    """A frame to the guest's side and one back. Raises HostError where one does not arrive."""
    taps = tap.connect(fd, interface, name=tap.name_of(interface.name, interface.index), queues=1)
    try:
        far = netns.within(fd, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL)))
        with contextlib.closing(far):
            far.bind((_OUTSIDE, _ALL))
            far.setblocking(False)
            there, back = _GUEST + _OTHER + _TYPE + b"there", _OTHER + _GUEST + _TYPE + b"back!"
            far.send(there)
            _await(taps[0], lambda: os.read(taps[0], 65536)[len(_HEADER) :], there, "to the guest")
            os.write(taps[0], _HEADER + back)
            _await(far.fileno(), lambda: far.recv(65536), back, "from the guest")
    finally:
        for each in taps:
            os.close(each)


def _await(fd: int, read: Callable[[], bytes], wanted: bytes, which: str) -> None:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    deadline = time.monotonic() + _WAIT_S
    while (left := deadline - time.monotonic()) > 0 and poller.poll(left * 1000):
        # What kernels say by themselves is passed over.
        found = read()
        if found[: len(wanted)] == wanted:
            return
        if not found:
            break
    raise HostError(f"a frame {which} was lost between the interface and the TAP")


async def _bpf(report: Report, fd: int) -> None:
    try:
        opened = await in_thread(lambda: lookup.take_over(fd))
    except HostError as error:
        report.warning("BPF SK_LOOKUP", f'{error.message}: port-forward gets "connection refused"', error.hint)
    else:
        opened.close()
        report.ok("BPF SK_LOOKUP", "connections inside a container's network namespace reach it (port-forward)")


def _load(host: Host, names: tuple[str, ...]) -> str:
    missing = [name for name in names if module(host, name) is Module.MISSING]
    if missing and host.path(f"/lib/modules/{os.uname().release}").is_dir():
        return f"use a kernel with the modules {', '.join(missing)}"
    return f"modprobe -a {' '.join(names)}"
