"""An interface in place of a container's that is gone.

bridge and ptp find what they have to take out of the host's masquerading by the addresses of the container's interface
(plugins' pkg/ip, DelLinkByNameAddr; 1.1.1 as 1.10.0). Once that has vanished, or its namespace, their DEL succeeds and
leaves those rules for ever. So they are shown one with the addresses that ADD has told of.

It is in the network namespace of a child that ends when we let go of its standard input, however that comes.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from cni.errors import CniError

# A host without IPv6 cannot take those addresses, and has no rules for them.
_PROGRAM = """
name=$1
shift
ip link add name "$name" type veth || exit 1
for address; do ip address add "$address" dev "$name"; done
echo ready
read -r end
"""
_READY = b"ready\n"
_WORDS_MAX = 4096


@asynccontextmanager
async def shown(ifname: str, addresses: Sequence[str], *, timeout_s: float) -> AsyncIterator[str]:
    """The path of a network namespace with such an interface, as long as this lasts. Raises CniError."""
    child = _started(ifname, addresses)
    with child:
        try:
            said = await _said(child, timeout_s)
            if not said.endswith(_READY):
                words = " ".join(said.decode(errors="replace").split()) or "no word"
                raise CniError(f"nothing can stand in for the interface {ifname!r} that is gone: {words}")
            yield f"/proc/{child.pid}/ns/net"
        finally:
            os.killpg(child.pid, signal.SIGKILL)  # not reaped yet, so that is still its group


def _started(ifname: str, addresses: Sequence[str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            ["unshare", "--net", "sh", "-c", _PROGRAM, "sh", ifname, *addresses],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
        )
    except OSError as error:
        raise CniError(
            f"nothing can stand in for the interface {ifname!r} that is gone: unshare: {error.strerror}"
        ) from error


async def _said(child: subprocess.Popen[bytes], timeout_s: float) -> bytes:
    """All that it says until it is ready, at its end, or out of time."""
    assert child.stdout is not None
    fd = child.stdout.fileno()
    os.set_blocking(fd, False)
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    said = bytearray()

    def hear() -> None:
        data = os.read(fd, _WORDS_MAX)
        said.extend(data)
        if not data or said.endswith(_READY) or len(said) > _WORDS_MAX:
            loop.remove_reader(fd)
            over.set()

    loop.add_reader(fd, hear)
    try:
        async with asyncio.timeout(timeout_s):
            await over.wait()
    except TimeoutError:
        return bytes(said)
    finally:
        loop.remove_reader(fd)
    return bytes(said)
