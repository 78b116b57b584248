"""vsock by the host's kernel, as far as it goes without /dev/vhost-vsock."""

import errno
import fcntl
import os
import socket
import struct
from pathlib import Path

import pytest

from shim.errors import HostError, MissingPartError, ResourceError
from shim.vm import vsock_kernel
from shim.vm.vsock_kernel import KernelVsock, _is_guest


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "vhost-vsock"
    path.touch()
    monkeypatch.setattr(vsock_kernel, "KERNEL_DEVICE", str(path))
    return path


async def test_a_missing_device_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vsock_kernel, "KERNEL_DEVICE", "/nonexistent/vhost-vsock")
    with pytest.raises(MissingPartError, match="load the module vhost_vsock"):
        await KernelVsock().prepare(1)


async def test_a_taken_cid_is_left_to_its_owner(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def ioctl(fd: int, request: int, argument: bytes) -> int:
        assert request == 0x4008AF60
        asked.append(struct.unpack("Q", argument)[0])
        if len(asked) < 3:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    before = set(os.listdir("/proc/self/fd"))
    vsock = KernelVsock()
    plugged = await vsock.prepare(1)
    assert plugged.cid == asked[2]
    assert len(set(asked)) == 3
    listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    with pytest.raises(OSError, match="Address already in use"):
        listener.bind((socket.VMADDR_CID_ANY, plugged.cid))
    listener.close()
    await vsock.close(1)
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [(errno.EADDRINUSE, ResourceError, "no free vsock CID"), (errno.EACCES, HostError, "is refused")],
)
async def test_no_cid_at_all(
    device: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception], words: str
) -> None:
    def ioctl(fd: int, request: int, argument: bytes) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    vsock = KernelVsock()
    with pytest.raises(kind, match=words):
        await vsock.prepare(1)
    await vsock.close(1)


class Peer(socket.socket):
    """A connection from a CID."""

    def __init__(self, cid: int | None) -> None:
        super().__init__(socket.AF_UNIX)
        self._cid = cid

    def getpeername(self) -> tuple[int, int]:
        if self._cid is None:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        return self._cid, 1234


@pytest.mark.parametrize(("cid", "admitted"), [(70000, True), (70001, False), (1, False), (None, False)])
def test_only_the_guest_with_the_cid_is_admitted(cid: int | None, admitted: bool) -> None:
    with Peer(cid) as peer:
        assert _is_guest(peer, 70000) is admitted
