"""Leads every frame that arrives at one interface out of another, in the kernel: tc's ingress qdisc with one filter.

The filter is u32's, which every kernel has, where matchall's module is missing from some; it has no keys, and so takes
frames of any protocol and length, those with VLAN tags, too. Its action is mirred's redirect (tc-mirred(8)).

What is ours is told by the filter's priority, and whether it is still of use by its target, of which mirred forgets
the index when it goes (net/sched/act_mirred.c, mirred_device_event). A qdisc of somebody else's is neither used nor
removed.

Import-light, as rtnetlink.py.
"""

from __future__ import annotations

import errno
import struct

from netlink.attribute import attribute, attributes, string, text
from netlink.message import NLM_F_CREATE, NLM_F_EXCL

# The name is what type checkers look for; importing it from `typing` would cost the import (shim/entry.py).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim.network.rtnetlink import Rtnetlink

# linux/rtnetlink.h
_RTM_NEWQDISC, _RTM_DELQDISC = 36, 37
_RTM_NEWTFILTER, _RTM_GETTFILTER = 44, 46
# struct tcmsg: family, interface, handle, parent, info.
_TRAFFIC = struct.Struct("=BxxxiIII")
# linux/pkt_sched.h: the qdisc is ffff:, its place ffff:fff1.
_INGRESS = 0xFFFF0000
_INGRESS_PARENT = 0xFFFFFFF1
_KIND, _OPTIONS = 1, 2
# The letters of qemubox; the kernel gives filters that name no priority 49152 and less.
_PRIORITY = 0x7162
_ALL_PROTOCOLS = 0x0300  # ETH_P_ALL, in the order of the network
# linux/pkt_cls.h: u32's selector of no keys, which ends the search.
_U32_SELECTOR, _U32_ACTIONS = 5, 7
_SELECTOR = struct.pack("=BBBxHHhhI", 1, 0, 0, 0, 0, 0, 0, 0)
# linux/tc_act/tc_mirred.h
_ACTION_KIND, _ACTION_OPTIONS = 1, 2
_MIRRED_PARAMETERS = 2
# Its index, capabilities, what becomes of the frame, two counts; what to do, and with which interface.
_MIRRED = struct.Struct("=IIiiiiI")
_STOLEN = 4
_REDIRECT_OUT = 1


def lead(kernel: Rtnetlink, index: int, to: int) -> None:
    """Redirect what arrives at the interface `index` out of the interface `to`.

    Raises FileExistsError where it has an ingress qdisc already, OSError for anything else; then nothing is left.
    """
    kernel.change(_RTM_NEWQDISC, _qdisc(index), NLM_F_CREATE | NLM_F_EXCL)
    try:
        kernel.change(_RTM_NEWTFILTER, _filter(index, to), NLM_F_CREATE | NLM_F_EXCL)
    except BaseException:
        kernel.change(_RTM_DELQDISC, _qdisc(index))
        raise


def _qdisc(index: int) -> bytes:
    """With its kind: clsact has the same place."""
    return _TRAFFIC.pack(0, index, _INGRESS, _INGRESS_PARENT, 0) + string(_KIND, "ingress")


def _filter(index: int, to: int) -> bytes:
    parameters = _MIRRED.pack(0, 0, _STOLEN, 0, 0, _REDIRECT_OUT, to)
    action = string(_ACTION_KIND, "mirred") + attribute(_ACTION_OPTIONS, attribute(_MIRRED_PARAMETERS, parameters))
    options = attribute(_U32_SELECTOR, _SELECTOR) + attribute(_U32_ACTIONS, attribute(1, action))
    return (
        _TRAFFIC.pack(0, index, 0, _INGRESS, _PRIORITY << 16 | _ALL_PROTOCOLS)
        + string(_KIND, "u32")
        + attribute(_OPTIONS, options)
    )


def let_go(kernel: Rtnetlink, index: int) -> None:
    """Undo `lead`, whole or begun, once what it led to is gone.

    A qdisc of another program's stays, and one that leads somewhere. Raises OSError.
    """
    try:
        found = kernel.dump(_RTM_GETTFILTER, _TRAFFIC.pack(0, index, 0, _INGRESS, 0))
        if all(_is_left(message) for message in found):
            kernel.change(_RTM_DELQDISC, _qdisc(index))
    except OSError as error:
        # There is no such qdisc, or one of another kind, or the interface has gone, and its qdisc with it.
        if error.errno not in (errno.ENOENT, errno.EINVAL, errno.ENODEV):
            raise


def _is_left(message: bytes) -> bool:
    """Whether a filter is ours, and leads nowhere any more. The kernel tells of the filter's hash tables, too."""
    parts = attributes(message, _TRAFFIC.size)
    if (_TRAFFIC.unpack_from(message)[4] >> 16, text(parts.get(_KIND, b""))) != (_PRIORITY, "u32"):
        return False
    action = attributes(attributes(attributes(parts.get(_OPTIONS, b"")).get(_U32_ACTIONS, b"")).get(1, b""))
    parameters = attributes(action.get(_ACTION_OPTIONS, b"")).get(_MIRRED_PARAMETERS, b"")
    return len(parameters) < _MIRRED.size or _MIRRED.unpack_from(parameters)[-1] == 0
