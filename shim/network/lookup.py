"""Has one listener of ours accept every TCP connection that is made to a local address of a network namespace.

The processes of a container are in its guest, so nothing listens in its network namespace on the
host: who dials localhost in there, as `crictl port-forward` has containerd do (contract 4.5), would be
refused. A program of the kind BPF_PROG_TYPE_SK_LOOKUP is asked by the kernel, before it looks for a
listener itself, which socket a connection is for. Ours always says the same one, and the accepted
socket's own address is what was dialled (Documentation/bpf/prog_sk_lookup.rst). No rule, address or
setting in the namespace changes, and all of it ends with the descriptors that are open here.

- Only TCP, and only what is new: of an established connection the kernel asks nothing.
- Whatever the address and port: also where somebody in the namespace really listens. The kernel has no
  way for such a program to find that listener (bpf_sk_lookup_tcp is not among its functions).
- Whoever dials. What comes from outside does not get here, since it is redirected to the guest's TAP;
  if it did, it would be led to the same address in the guest, and to a loopback address it cannot come.

Needs Linux 5.9, and the right to load such programs.
"""

import contextlib
import ctypes
import errno
import os
import socket
import struct
from typing import Final

from shim.errors import HostError
from shim.network.netns import within

# Connections that the kernel has accepted and we have not yet.
_BACKLOG: Final = 128

# include/uapi/linux/in.h, in6.h: an address may be bound that the namespace does not have.
_IP_FREEBIND: Final = 15
_IPV6_FREEBIND: Final = 78

# include/uapi/linux/bpf.h; the number of the system call is that of x86_64.
_SYS_BPF: Final = 321
_MAP_CREATE: Final = 0
_MAP_UPDATE_ELEM: Final = 2
_PROG_LOAD: Final = 5
_LINK_CREATE: Final = 28
_MAP_TYPE_SOCKMAP: Final = 15
_PROG_TYPE_SK_LOOKUP: Final = 30
_ATTACH_SK_LOOKUP: Final = 36
_FUNC_MAP_LOOKUP_ELEM: Final = 1
_FUNC_SK_RELEASE: Final = 86
_FUNC_SK_ASSIGN: Final = 124
_SK_PASS: Final = 1
# Offsets in struct bpf_sk_lookup.
_FAMILY: Final = 8
_PROTOCOL: Final = 12

# Operation codes of the machine (RFC 9669): 64-bit moves and jumps, and 32-bit loads and stores.
_MOVE: Final = 0xBF
_MOVE_IMMEDIATE: Final = 0xB7
_ADD_IMMEDIATE: Final = 0x07
_LOAD_32: Final = 0x61
_STORE_32: Final = 0x63
_LOAD_MAP: Final = 0x18
_JUMP_EQUAL: Final = 0x15
_JUMP_DIFFERENT: Final = 0x55
_CALL: Final = 0x85
_EXIT: Final = 0x95

# What `bpftool prog` shows.
_NAME: Final = b"qemubox_forward"

_libc = ctypes.CDLL(None, use_errno=True)


class Lookup:
    """Listeners of a namespace that get all connections to its local addresses, for as long as this is open."""

    def __init__(self, listeners: list[socket.socket], link: int) -> None:
        self.listeners = listeners
        self._link = link

    def close(self) -> None:
        """The namespace is as it was; who has not been accepted yet is reset. More than once does nothing."""
        if self._link >= 0:
            os.close(self._link)
            self._link = -1
        for listener in self.listeners:
            listener.close()


def take_over(netns: int) -> Lookup:
    """Make the listeners, for IPv4 and, where the kernel has it, IPv6, and give them all connections from now on.

    `netns` is an open network namespace. Blocks, for about a millisecond. Raises HostError.
    """
    listeners: dict[socket.AddressFamily, socket.socket] = {}
    try:
        within(netns, lambda: _listen(listeners))
        return Lookup(list(listeners.values()), _link(netns, listeners))
    except OSError as error:
        for listener in listeners.values():
            listener.close()
        raise HostError(
            f"connections inside the network namespace cannot be led to the container: {error}",
            hint="this takes Linux 5.9 or newer, and a kernel and a security policy that let root load BPF programs",
        ) from error


def _listen(listeners: dict[socket.AddressFamily, socket.socket]) -> None:
    """In the namespace: a socket of each family, at a port of the kernel's choice, which nobody need know.

    Whether the namespace's loopback interface is up, or has IPv6, can change: bound to it they are in any case.
    """
    for family, address, level, freely in (
        (socket.AF_INET, "127.0.0.1", socket.IPPROTO_IP, _IP_FREEBIND),
        (socket.AF_INET6, "::1", socket.IPPROTO_IPV6, _IPV6_FREEBIND),
    ):
        try:
            listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            if error.errno == errno.EAFNOSUPPORT:  # a kernel without IPv6
                continue
            raise
        listeners[family] = listener
        listener.setsockopt(level, freely, 1)
        listener.bind((address, 0))
        listener.listen(_BACKLOG)


def _link(netns: int, listeners: dict[socket.AddressFamily, socket.socket]) -> int:
    """The descriptor by which the program is attached. It holds the program, and that the map."""
    with contextlib.ExitStack() as opened:
        kind = struct.pack("=IIII", _MAP_TYPE_SOCKMAP, 4, 8, len(listeners))
        sockets = _bpf("make a map of sockets", _MAP_CREATE, kind)
        opened.callback(os.close, sockets)
        for number, listener in enumerate(listeners.values()):
            key, value = _buffer(struct.pack("=I", number)), _buffer(struct.pack("=Q", listener.fileno()))
            attributes = struct.pack("=I4xQQQ", sockets, ctypes.addressof(key), ctypes.addressof(value), 0)
            _bpf("put a listener into it", _MAP_UPDATE_ELEM, attributes)
        instructions, licence = _buffer(program(sockets, list(listeners))), _buffer(b"GPL\0")
        attributes = struct.pack(
            "=IIQQ24x16s4xI",
            *(_PROG_TYPE_SK_LOOKUP, len(instructions) // 8, ctypes.addressof(instructions), ctypes.addressof(licence)),
            *(_NAME, _ATTACH_SK_LOOKUP),
        )
        loaded = _bpf("load the program", _PROG_LOAD, attributes)
        opened.callback(os.close, loaded)
        return _bpf("attach the program", _LINK_CREATE, struct.pack("=IIII", loaded, netns, _ATTACH_SK_LOOKUP, 0))


def program(sockets: int, families: list[socket.AddressFamily]) -> bytes:
    """The program's instructions: for TCP, the socket at the family's place in the map `sockets`. Pure.

    In C: if (ctx->protocol == IPPROTO_TCP) { key = ctx->family == …; sk = map_lookup(&sockets, &key);
    if (sk) { sk_assign(ctx, sk, 0); sk_release(sk); } } return SK_PASS;
    """
    # A family without a listener gets a key that is not in the map.
    choose = [_instruction(_MOVE_IMMEDIATE, 2, immediate=len(families))]
    for number, family in enumerate(families):
        choose += [
            _instruction(_JUMP_DIFFERENT, 3, offset=1, immediate=family),
            _instruction(_MOVE_IMMEDIATE, 2, immediate=number),
        ]
    assign = [
        _instruction(_MOVE, 7, 0),
        _instruction(_MOVE, 1, 6),
        _instruction(_MOVE, 2, 7),
        _instruction(_MOVE_IMMEDIATE, 3),
        _instruction(_CALL, immediate=_FUNC_SK_ASSIGN),
        _instruction(_MOVE, 1, 7),
        _instruction(_CALL, immediate=_FUNC_SK_RELEASE),
    ]
    tcp = [
        _instruction(_LOAD_32, 3, 6, offset=_FAMILY),
        *choose,
        _instruction(_STORE_32, 10, 2, offset=-4),
        _instruction(_MOVE, 2, 10),
        _instruction(_ADD_IMMEDIATE, 2, immediate=-4),
        # The map's descriptor takes two instructions, by a pseudo source register (BPF_PSEUDO_MAP_FD).
        _instruction(_LOAD_MAP, 1, 1, immediate=sockets),
        _instruction(0),
        _instruction(_CALL, immediate=_FUNC_MAP_LOOKUP_ELEM),
        _instruction(_JUMP_EQUAL, 0, offset=len(assign)),
        *assign,
    ]
    return b"".join(
        [
            _instruction(_MOVE, 6, 1),
            _instruction(_LOAD_32, 1, 6, offset=_PROTOCOL),
            _instruction(_JUMP_DIFFERENT, 1, offset=len(tcp), immediate=socket.IPPROTO_TCP),
            *tcp,
            _instruction(_MOVE_IMMEDIATE, 0, immediate=_SK_PASS),
            _instruction(_EXIT),
        ]
    )


def _instruction(code: int, target: int = 0, source: int = 0, *, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("=BBhi", code, target | source << 4, offset, immediate)


def _buffer(data: bytes) -> "ctypes.Array[ctypes.c_char]":
    return ctypes.create_string_buffer(data, len(data))


def _bpf(what: str, command: int, attributes: bytes) -> int:
    """bpf(2), whose answer is a descriptor, closed on exec, or 0. Raises OSError that says `what` could not be done."""
    buffer = _buffer(attributes)
    result = int(_libc.syscall(ctypes.c_long(_SYS_BPF), ctypes.c_int(command), buffer, ctypes.c_uint(len(buffer))))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"bpf(2) does not {what}: {os.strerror(number)}")
    return result
