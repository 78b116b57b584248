"""The program that an anchor process runs; shim/anchor.py starts it and says what it is for.

usage: python3 -IS anchor_main.py MARKER PARENT ROOT

MARKER is for `delete`, which finds the process by it; PARENT is the pid it is to die with;
ROOT is an empty directory. Its mount namespace holds one read-only, empty file system and
nothing else: a copy of the host's mounts would keep every one of them busy for as long as
the container runs, and what a client writes through /proc/PID/root must fail, not vanish.

Imports nothing but what the standard library has compiled in: it is started once per container.
"""

import ctypes
import os
import sys

_CLONE_NEWNS = 0x00020000
_CLONE_NEWNET = 0x40000000
_CLONE_NEWUTS = 0x04000000
_CLONE_NEWIPC = 0x08000000
_MS_REC_PRIVATE = 0x4000 | (1 << 18)
_MS_RDONLY_NOSUID_NODEV_NOEXEC = 0x1 | 0x2 | 0x4 | 0x8
_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1
_SIGINT, _SIGKILL = 2, 9


def main(parent: int, root: bytes) -> None:
    """Become the anchor; returns never."""
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0), "prctl")
    if os.getppid() != parent:  # it died before the call above
        sys.exit(1)
    _check(libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET | _CLONE_NEWUTS | _CLONE_NEWIPC), "unshare")
    _check(libc.mount(None, b"/", None, _MS_REC_PRIVATE, None), "mount / private")
    _check(libc.mount(b"anchor", root, b"tmpfs", _MS_RDONLY_NOSUID_NODEV_NOEXEC, b"size=4k,mode=555"), "mount tmpfs")
    os.chdir(root)
    # The new root over the old one, then the old one off from below it (pivot_root(2), NOTES).
    _check(libc.pivot_root(b".", b"."), "pivot_root")
    _check(libc.umount2(b".", _MNT_DETACH), "umount2")
    os.chdir("/")
    os.setsid()
    libc.signal(_SIGINT, None)  # the default instead of Python's KeyboardInterrupt
    os.write(1, b"ready\n")
    os.dup2(0, 1)
    os.dup2(0, 2)
    while True:
        libc.pause()


def _check(result: int, call: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{call}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main(int(sys.argv[2]), os.fsencode(sys.argv[3]))
