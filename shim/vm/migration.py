"""A paused machine's state, written to a file and read back: QEMU's migration, to a file instead of a peer.

Without its memory, which lies in a file already and is not QEMU's to carry (capability x-ignore-shared): what is left
is 300 KiB of devices, behind the memory in the same file.

QEMU has no right to any file: it is handed an open descriptor, writable when it saves and
read-only when it loads. How it is told of one changed: `fd:NAME` takes files until it was
deprecated for them in 9.1, `file:` takes /dev/fdset/N since 8.2 (QEMU documentation,
"Deprecated features" and "Migration"). Both sides are told by the MIGRATION event, which
comes last of all, when the machine stands still and may be given devices.
"""

import asyncio
import os
from typing import Final

from shim.errors import MachineError
from shim.vm.qmp import Event, Qmp

# Far from hotplug.py's, which count from 1.
_FDSET: Final = 1000
_FD_NAME: Final = "template"
# QEMU throttles itself to 128 MiB/s otherwise. There is nobody to be gentle with.
_BANDWIDTH: Final = 1 << 40
_ENDS: Final = ("completed", "failed", "cancelled")
_FILE_SINCE: Final = (9, 1)


async def save(qmp: Qmp, fd: int, offset: int, timeout_s: float) -> str:
    """Write the paused machine to the open, writable file `fd` from `offset` on; answers QEMU's version.

    All of it has been written when this returns. Raises MachineError with QEMU's reason, such as a full disk.
    """
    version = await _version(qmp)
    await _set_up(qmp)
    await qmp.execute("migrate-set-parameters", {"max-bandwidth": _BANDWIDTH})
    await _migrate(qmp, "migrate", await _hand_over(qmp, version, fd, offset), timeout_s)
    return ".".join(map(str, version))


async def load(qmp: Qmp, fd: int, offset: int, timeout_s: float) -> None:
    """Read a machine's state, from `offset` of the open file `fd`, into a QEMU that waits for one (-incoming defer).

    Raises MachineError; a QEMU that could not load has ended, or must be.
    """
    version = await _version(qmp)
    await _set_up(qmp)
    await _migrate(qmp, "migrate-incoming", await _hand_over(qmp, version, fd, offset), timeout_s)


def uri(version: tuple[int, ...], offset: int) -> str:
    """How a QEMU of that version is told of the file. Pure."""
    return f"file:/dev/fdset/{_FDSET},offset={offset:#x}" if version >= _FILE_SINCE else f"fd:{_FD_NAME}"


async def _hand_over(qmp: Qmp, version: tuple[int, ...], fd: int, offset: int) -> str:
    if version >= _FILE_SINCE:
        await qmp.add_fd(_FDSET, fd)
    else:
        # A stream begins where the file stands, for QEMU's descriptor as for ours.
        os.lseek(fd, offset, os.SEEK_SET)
        await qmp.get_fd(_FD_NAME, fd)
    return uri(version, offset)


async def _set_up(qmp: Qmp) -> None:
    capabilities = [{"capability": name, "state": True} for name in ("events", "x-ignore-shared")]
    await qmp.execute("migrate-set-capabilities", {"capabilities": capabilities})


async def _migrate(qmp: Qmp, command: str, where: str, timeout_s: float) -> None:
    """Start it, and wait for the event that it is over."""
    over: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def on_event(event: Event) -> None:
        status = str(event.data.get("status", ""))
        if event.name == "MIGRATION" and status in _ENDS and not over.done():
            over.set_result(status)

    stop = qmp.on_event(on_event)
    try:
        async with asyncio.timeout(timeout_s):
            await qmp.execute(command, {"uri": where})
            status = await over
    except TimeoutError:
        raise MachineError(f"QEMU's {command} was not over within {timeout_s:g} s") from None
    finally:
        stop()
    if status != "completed":
        raise MachineError(f"QEMU's {command} {status}{await _reason(qmp)}")


async def _reason(qmp: Qmp) -> str:
    answer = await qmp.execute("query-migrate")
    return f": {answer['error-desc']}" if isinstance(answer, dict) and "error-desc" in answer else ""


async def _version(qmp: Qmp) -> tuple[int, ...]:
    answer = await qmp.execute("query-version")
    number = answer.get("qemu") if isinstance(answer, dict) else None
    if not isinstance(number, dict):
        raise MachineError(f"QEMU does not tell its version: {answer!r}")
    return tuple(int(number[part]) for part in ("major", "minor", "micro"))
