"""What a process shows of itself in /proc, where that is not what it was started with.

People, tests and our own clean-up look at command lines (`delete`, the journal's markers), so a
fork of the service must show the very command line that an exec'ed shim shows, and an anchor its
marker. The kernel takes a process's word for where in its memory the two lie: prctl(2),
PR_SET_MM_MAP, which needs no capability but a kernel with CONFIG_CHECKPOINT_RESTORE, as all
distributions' have. The library setproctitle writes over the strings of the start instead: no
longer than those were, and as one word.

Import-light: anchors use it before anything else is imported.
"""

from __future__ import annotations

import ctypes
import errno
import os

_PR_SET_MM, _PR_SET_MM_MAP = 35, 14
_SYS_BRK = 12  # x86_64

# What the kernel has been pointed to; it must stay as long as the process.
_shown: ctypes.Array[ctypes.c_char] | None = None


class _Map(ctypes.Structure):
    """struct prctl_mm_map of linux/prctl.h. `auxv_size` of 0 and `exe_fd` of -1 leave those as they are."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("start_code", "end_code", "start_data", "end_data", "start_brk", "brk")),
        *((name, ctypes.c_uint64) for name in ("start_stack", "arg_start", "arg_end", "env_start", "env_end", "auxv")),
        *(("auxv_size", ctypes.c_uint32), ("exe_fd", ctypes.c_uint32)),
    )


def show(command_line: bytes, environment: bytes, name: bytes) -> None:
    """Show these in /proc/self: `cmdline` and `environ`, each string ended by NUL, and `comm`, 15 bytes of it.

    For a process with one thread. Raises OSError where the kernel refuses.
    """
    global _shown
    shown = ctypes.create_string_buffer(command_line + environment)
    map_ = _present()
    map_.arg_start = ctypes.addressof(shown)
    map_.arg_end = map_.env_start = map_.arg_start + len(command_line)
    map_.env_end = map_.env_start + len(environment)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_ulong
    # As late as can be, for it is set with the rest: nothing may take memory from the heap's end in between.
    map_.brk = libc.syscall(_SYS_BRK, 0)
    if libc.prctl(_PR_SET_MM, ctypes.c_ulong(_PR_SET_MM_MAP), ctypes.byref(map_), ctypes.sizeof(map_), 0) != 0:
        number = ctypes.get_errno()
        why = "the kernel has no CONFIG_CHECKPOINT_RESTORE" if number == errno.EINVAL else os.strerror(number)
        raise OSError(number, f"prctl PR_SET_MM_MAP: {why}")
    _shown = shown
    fd = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, name)
    finally:
        os.close(fd)


def _present() -> _Map:
    """How the process's memory lies now (proc_pid_stat(5), which counts from 1; behind the name comes field 3)."""
    with open("/proc/self/stat", "rb") as file:
        fields = [b"", b"", b"", *file.read().rpartition(b") ")[2].split()]
    start_code, end_code, start_stack = map(int, fields[26:29])
    start_data, end_data, start_brk = map(int, fields[45:48])
    return _Map(
        start_code=start_code,
        end_code=end_code,
        start_stack=start_stack,
        start_data=start_data,
        end_data=end_data,
        start_brk=start_brk,
        exe_fd=0xFFFFFFFF,
    )
