"""A TAP beside each interface of a network namespace, and all frames led from one to the other.

    veth (or whatever it is)  ──ingress──▶  TAP  ──▶  QEMU, the guest's NIC
                              ◀──ingress──       ◀──

What arrives at the interface leaves by the TAP, and what the guest sends arrives at the TAP and leaves by the
interface; neither reaches the protocols of the namespace itself. The interface keeps its addresses, so whoever looks
at it finds what the guest has.

A TAP is not persistent: it is there until the last descriptor of it is closed, which is QEMU's, and takes its qdisc
along. That of the interface stays, and is taken back by `disconnect`. One machine has a namespace: the TAP's name can
be had once, and so can the place of an ingress qdisc.

Import-light, as netns.py: `delete` may have to disconnect.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct

from netlink import rtnl
from netlink.attribute import string, u32
from shim.network import netns, redirect
from shim.network.rtnetlink import Rtnetlink

# The name is what type checkers look for; importing it from `typing` would cost the import (shim/entry.py).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim.network.links import Interface

# nerdctl adds up all interfaces of a container whose names do not begin with "lo" (pkg/cmd/container/stats_linux.go in
# nerdctl 2): by any other name, each byte would count twice.
PREFIX = "loqb-"
_NAME_LIMIT = 15  # linux/if.h, IFNAMSIZ, without its NUL
# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_TAP, _NO_PI, _MULTI_QUEUE, _VNET_HDR, _EXCLUSIVE = 0x0002, 0x1000, 0x0100, 0x4000, 0x8000
_REQUEST = struct.Struct("=16sH22x")
# There is no such file, or no driver behind it, or this is a place where it may not be used.
_NO_VHOST = (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EACCES, errno.EPERM)
# These take every frame that is sent to them.
_TAKE_ALL = ("veth", "bridge")
_TUN = "/dev/net/tun"
_VHOST_NET = "/dev/vhost-net"


def name_of(interface: str, index: int) -> str:
    """What the TAP of an interface is called: `loqb-eth0`. Where that is too long, its index is in place of its end."""
    name = PREFIX + interface
    if len(os.fsencode(name)) <= _NAME_LIMIT:
        return name
    end = f"~{index:x}"
    return os.fsdecode(os.fsencode(name)[: _NAME_LIMIT - len(end)]) + end


def connect(fd: int, interface: Interface, *, name: str, queues: int) -> list[int]:
    """Make a TAP `name` in the namespace and lead all frames between it and the interface.

    Answers an open descriptor of the TAP for each of `queues`, for QEMU; the TAP is there as long as one of them is.
    Blocks. Raises SpecError where another machine, or another program, has the interface, ResourceError or HostError
    for anything else; then all is as before.
    """
    from shim.errors import HostError

    try:
        return netns.within(fd, lambda: _connect_here(interface, name, queues))
    except OSError as error:
        reason = error.strerror or str(error)
        raise HostError(f"interface {interface.name} cannot be connected to a TAP: {reason}") from error


def _connect_here(interface: Interface, name: str, queues: int) -> list[int]:
    # What leads to the TAP can be taken back once the TAP has gone.
    with Rtnetlink() as kernel, contextlib.ExitStack() as last, contextlib.ExitStack() as undo:
        taps = _open(undo, interface, name, queues)
        tap = _index_of(kernel, name)
        _silence(name)
        mtu = u32(rtnl.IFLA_MTU, interface.mtu)
        kernel.change(rtnl.RTM_NEWLINK, rtnl.link(tap, flags=rtnl.IFF_UP, change=rtnl.IFF_UP, parts=mtu))
        redirect.lead(kernel, tap, interface.index)
        _lead_from(kernel, interface, tap)
        last.callback(_let_go_quietly, interface.index)
        _let_everything_in(kernel, interface)
        undo.pop_all()
        last.pop_all()
    return taps


def _open(undo: contextlib.ExitStack, interface: Interface, name: str, queues: int) -> list[int]:
    """A descriptor for each queue of a new TAP."""
    from shim.errors import MissingPartError, ResourceError, SpecError

    flags = _TAP | _NO_PI | _VNET_HDR | (_MULTI_QUEUE if queues > 1 else 0)
    taps: list[int] = []
    for queue in range(queues):
        try:
            tap = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise ResourceError(f"interface {interface.name}: {error.strerror}") from error
            raise MissingPartError(
                f"{_TUN} cannot be opened: {error.strerror}", hint="load the kernel module tun"
            ) from error
        undo.callback(os.close, tap)
        # The first must make it: a further one would be a queue of another machine's.
        request = _REQUEST.pack(os.fsencode(name), flags | (0 if queue else _EXCLUSIVE))
        try:
            fcntl.ioctl(tap, _TUNSETIFF, request)
        except OSError as error:
            if error.errno == errno.EBUSY and not queue:
                raise SpecError(
                    f"interface {interface.name}: it leads to another virtual machine already, by {name}",
                    hint="give each container a network namespace of its own",
                ) from error
            if error.errno == errno.E2BIG:
                raise ResourceError(f"interface {interface.name}: a TAP has no {queues} queues") from error
            raise
        taps.append(tap)
    return taps


def _lead_from(kernel: Rtnetlink, interface: Interface, tap: int) -> None:
    """Lead from the interface to the TAP. The TAP's name is ours: what a machine before us has left may be taken."""
    from shim.errors import SpecError

    try:
        try:
            redirect.lead(kernel, interface.index, tap)
        except FileExistsError:
            redirect.let_go(kernel, interface.index)
            redirect.lead(kernel, interface.index, tap)
    except FileExistsError as error:
        raise SpecError(
            f"interface {interface.name}: another program has an ingress qdisc on it",
            hint=f"see `tc qdisc show dev {interface.name}` in its network namespace, and remove it there",
        ) from error


def _let_everything_in(kernel: Rtnetlink, interface: Interface) -> None:
    """What the guest listens to its own kernel knows: this one's filter of multicast addresses would keep it out."""
    if interface.kind not in _TAKE_ALL and not interface.all_multicast:
        kernel.change(rtnl.RTM_NEWLINK, rtnl.link(interface.index, flags=rtnl.IFF_ALLMULTI, change=rtnl.IFF_ALLMULTI))


def _let_go_quietly(index: int) -> None:
    """The first failure is the one to tell."""
    with contextlib.suppress(OSError), Rtnetlink() as kernel:
        redirect.let_go(kernel, index)


def _index_of(kernel: Rtnetlink, name: str) -> int:
    """Raises OSError, ENODEV where there is no such interface."""
    found = kernel.ask(rtnl.RTM_GETLINK, rtnl.link(parts=string(rtnl.IFLA_IFNAME, name)))
    return int(rtnl.IFINFOMSG.unpack_from(found)[2])


def _silence(name: str) -> None:
    """No addresses of IPv6, nor any frame that the namespace's own kernel would send to the guest."""
    try:
        with open(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "w") as file:
            file.write("1")
    except FileNotFoundError:  # a kernel without IPv6
        return


def disconnect(fd: int, interface: str) -> None:
    """Take back what `connect` has done to an interface of a namespace that stays; its machine has ended by now.

    What is not ours stays: an ingress qdisc of another program's, and one that leads to a TAP, which is that of another
    machine. Does nothing where there is nothing. Blocks. Raises OSError.
    """
    netns.within(fd, lambda: _disconnect_here(interface))


def _disconnect_here(interface: str) -> None:
    with Rtnetlink() as kernel:
        try:
            index = _index_of(kernel, interface)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return
        redirect.let_go(kernel, index)


def open_vhost(queues: int) -> list[int]:
    """An open /dev/vhost-net for each queue; none at all where the kernel has none. Raises ResourceError."""
    from shim.errors import ResourceError

    with contextlib.ExitStack() as undo:
        opened: list[int] = []
        for _ in range(queues):
            try:
                opened.append(os.open(_VHOST_NET, os.O_RDWR | os.O_CLOEXEC))
            except OSError as error:
                if error.errno in _NO_VHOST:
                    return []
                raise ResourceError(f"{_VHOST_NET} cannot be opened: {error.strerror}") from error
            undo.callback(os.close, opened[-1])
        undo.pop_all()
        return opened
