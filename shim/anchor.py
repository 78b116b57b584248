"""The process whose pid containerd and its clients are shown as the task's.

The container's processes are in the machine and have no pid on the host. But clients
look at `/proc/PID` of a task: nerdctl reads addresses from `ns/net`, `cp` writes through
`root`, containerd asks whether the pid lives. QEMU's pid would hand them the host's
root directory. So each container has this small process: in a mount namespace that holds
nothing but an empty root, in a network namespace of its own, ended with the shim.

The program it runs is anchor_main.py.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Final

_PROGRAM: Final = Path(__file__).with_name("anchor_main.py")
_READY: Final = b"ready\n"


class Anchor:
    """A running anchor process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Its pid on the host."""
        return self._process.pid

    async def stop(self) -> None:
        """End it and reap it."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


async def start_anchor(marker: str, root: Path, *, deadline_s: float) -> Anchor:
    """Start an anchor; `root` is an empty directory for it to mount on, `marker` is for its command line.

    The caller has journaled `marker`. Raises OSError or TimeoutError.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-IS",
        str(_PROGRAM),
        marker,
        str(os.getpid()),
        str(root),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={},
    )
    assert process.stdout is not None
    anchor = Anchor(process)
    try:
        async with asyncio.timeout(deadline_s):
            line = await process.stdout.readline()
            if line == _READY:
                return anchor
            words = line + await process.stdout.read()
    except BaseException:
        await anchor.stop()
        raise
    await anchor.stop()
    last = words.decode(errors="replace").strip().rpartition("\n")[2]
    raise OSError(f"the anchor process ended with status {process.returncode} before it was ready: {last}")
