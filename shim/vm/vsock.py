"""How guest and shim come to talk: one interface, two ways behind it.

`kernel`: /dev/vhost-vsock; the host's kernel carries the bytes. `user`: the daemon
`vhost-device-vsock` carries them, one per machine. (`serial` is no vsock: see ports.py.)
Either way the guest dials: host CID 2, port = the guest's own CID (api/guest.proto).
"""

import asyncio
import enum
import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

# CIDs below 3 have a meaning of their own, small ones are what people pick by hand; 0xffffffff is "any" (vsock(7)).
CID_FIRST: Final = 0x10000
CID_END: Final = 0x7FFFFFFF
# How long a dialler may take to say what it is.
TOKEN_TIMEOUT_S: Final = 5.0


KERNEL_DEVICE: Final = "/dev/vhost-vsock"


class LinkMode(enum.StrEnum):
    """What carries the bytes between shim and guest."""

    KERNEL = "kernel"
    SERIAL = "serial"
    USER = "user"


def choose_mode(wanted: Literal["auto", "kernel", "serial", "user"]) -> LinkMode:
    """What is asked for; "auto" is the kernel's vsock where its device can be opened, else the machine's own ports."""
    if wanted != "auto":
        return LinkMode(wanted)
    return LinkMode.KERNEL if os.access(KERNEL_DEVICE, os.R_OK | os.W_OK) else LinkMode.SERIAL


def random_cid() -> int:
    """A context identifier that another machine of this host hardly has."""
    return CID_FIRST + secrets.randbelow(CID_END - CID_FIRST)


@dataclass(frozen=True, slots=True)
class KernelVsockDevice:
    """To be plugged in: `vhost_fd` is an open /dev/vhost-vsock that has the CID already. The backend owns it."""

    cid: int
    vhost_fd: int


@dataclass(frozen=True, slots=True)
class UserVsockDevice:
    """To be plugged in: `vhost_user_fd` is a socket connected to the daemon. The backend owns it."""

    cid: int
    vhost_user_fd: int


VsockDevice = KernelVsockDevice | UserVsockDevice


class VsockBackend(Protocol):
    """One machine's way to its guest. Used as: prepare, plug in, device_added, control, streams, close."""

    @property
    def shared_memory(self) -> bool:
        """Whether the machine's memory must be shared (Machine.shared_memory)."""
        ...

    async def prepare(self, timeout_s: float) -> VsockDevice:
        """Get a CID, listen for the guest, and answer what QEMU must be given.

        Raises MissingPartError without the device or the daemon, MachineError when it does not work.
        """
        ...

    def on_lost(self, handler: Callable[[str], None]) -> None:
        """Once prepared: call `handler` with the reason if the guest can no longer be reached; not after `close`."""
        ...

    def device_added(self) -> None:
        """QEMU has its own copy of the descriptor now: release ours."""
        ...

    async def control(self, timeout_s: float) -> socket.socket:
        """Wait for the guest's control connection (see acceptor.Acceptor.control)."""
        ...

    def expect(self, token: bytes) -> "asyncio.Future[socket.socket]":
        """Announce a stream (see acceptor.Acceptor.expect)."""
        ...

    async def close(self, timeout_s: float) -> None:
        """Release everything. Handed-out sockets stay with their owners. May be called at any time, twice too."""
        ...
