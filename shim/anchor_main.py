"""The program that an anchor process runs; shim/anchor.py starts it and says what it is for.

usage: python3 -IS anchor_main.py MARKER ROOT    MARKER is for `delete`, which finds the process by it.

Imports nothing but what the standard library has compiled in: it is started once per container.
"""

import ctypes
import os
import signal
import sys

_CLONE_NEWNS = 0x00020000
_CLONE_NEWNET = 0x40000000
_CLONE_NEWUTS = 0x04000000
_CLONE_NEWIPC = 0x08000000
_MS_REC_PRIVATE = 0x4000 | (1 << 18)
_PR_SET_PDEATHSIG = 1


def main(root: str) -> None:
    """Become the anchor; returns never."""
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if os.getppid() != parent:  # it died before the call above
        sys.exit(1)
    _check(libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET | _CLONE_NEWUTS | _CLONE_NEWIPC), "unshare")
    _check(libc.mount(None, b"/", None, _MS_REC_PRIVATE, None), "mount")
    os.setsid()
    os.chroot(root)
    os.chdir("/")
    os.write(1, b"ready\n")
    null = os.dup(0)
    os.dup2(null, 1)
    os.dup2(null, 2)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    while True:
        signal.pause()


def _check(result: int, call: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), call)


if __name__ == "__main__":
    main(sys.argv[2])
