"""System calls that Python has no function for: mounts of both kinds, syncfs, reboot, some socket options.

Each raises OSError with the kernel's errno, and with the target as its file name. Called through libc; see mount(2),
umount2(2), fsopen(2), fsconfig(2), fsmount(2), move_mount(2), syncfs(2), reboot(2). glibc has the new mount calls
since 2.36.
"""

import ctypes
import os

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_SYNCHRONOUS = 0x10
MS_REMOUNT = 0x20
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_RELATIME = 1 << 21

MNT_DETACH = 0x2

RB_AUTOBOOT = 0x01234567
RB_POWER_OFF = 0x4321FEDC

_FSOPEN_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_FSMOUNT_CLOEXEC = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = 0o2000000
_MOUNT_ATTR_IDMAP = 0x100000
_CLONE_NEWUSER = 0x1000_0000
_MOST_TEXT = 4096

# include/uapi/linux/bpf.h; the number of the system call is that of x86_64.
_SYS_BPF = 321
_BPF_PROG_QUERY = 16
_BPF_CGROUP_DEVICE = 6


class _BpfQuery(ctypes.Structure):
    """What BPF_PROG_QUERY takes of union bpf_attr."""

    _fields_ = (
        ("target_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("query_flags", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32),
        ("prog_ids", ctypes.c_uint64),
        ("prog_cnt", ctypes.c_uint32),
    )


class _MountAttributes(ctypes.Structure):
    """struct mount_attr of mount_setattr(2)."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    _check(
        _libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            fstype.encode(),
            ctypes.c_ulong(flags),
            os.fsencode(data) if data else None,
        ),
        target,
    )


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), flags), target)


def unshare_user() -> None:
    """unshare(2) with CLONE_NEWUSER. Only a process with a single thread may."""
    _check(_libc.unshare(_CLONE_NEWUSER), "unshare")


def replace_with_mapped(target: str, user_namespace: int) -> None:
    """Puts a mount in place of the one at `target` that shows the same files with the owners of a user namespace.

    mount_setattr(2), MOUNT_ATTR_IDMAP: only a mount that was never seen can be given them.
    """
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC
    tree = _check(_libc.open_tree(_AT_FDCWD, os.fsencode(target), flags), target)
    try:
        attributes = _MountAttributes(attr_set=_MOUNT_ATTR_IDMAP, userns_fd=user_namespace)
        size = ctypes.sizeof(attributes)
        _check(_libc.mount_setattr(tree, b"", _AT_EMPTY_PATH, ctypes.byref(attributes), size), target)
        umount(target)
        _check(_libc.move_mount(tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH), target)
    finally:
        os.close(tree)


def sync_filesystem(descriptor: int) -> None:
    """syncfs(2): all of the file system that `descriptor` is open on is on its disk. Also tells of earlier losses."""
    _check(_libc.syncfs(descriptor), "syncfs")


def reboot(command: int) -> None:
    """reboot(2): with RB_AUTOBOOT or RB_POWER_OFF it does not return. Does not write dirty data back."""
    _check(_libc.reboot(ctypes.c_int(command)), "reboot")


def attached_device_programs(cgroup: int) -> int:
    """How many programs for devices are attached to the open cgroup itself: bpf(2), BPF_PROG_QUERY."""
    query = _BpfQuery(target_fd=cgroup, attach_type=_BPF_CGROUP_DEVICE)
    arguments = (ctypes.c_long(_SYS_BPF), ctypes.c_int(_BPF_PROG_QUERY), ctypes.byref(query), ctypes.sizeof(query))
    _check(_libc.syscall(*arguments), "bpf")
    return int(query.prog_cnt)


def set_socket_option(descriptor: int, level: int, option: int, value: bytes) -> None:
    """setsockopt(2). Python's own takes nothing but 64-bit numbers for a vsock."""
    _check(_libc.setsockopt(descriptor, level, option, value, len(value)), "setsockopt")


def join_user_namespace(namespace: int) -> None:
    """setns(2) into an open user namespace, as its root. Only a process with one thread may."""
    _check(_libc.setns(ctypes.c_int(namespace), ctypes.c_int(_CLONE_NEWUSER)), "setns")
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def mount_by_parameters(fstype: str, target: str, parameters: list[tuple[str, str]], attributes: int = 0) -> None:
    """Mounts `fstype` on `target`, with any number of parameters; an empty value is a flag.

    mount(2) takes all options in one page of 4096 bytes, which a hundred layers do not fit in. `attributes` are
    MOUNT_ATTR_*, whose values for read-only, nosuid, nodev and noexec are those of MS_*. The OSError carries, where
    there is one, the kernel's own explanation instead of the errno's text.
    """
    context = _check(_libc.fsopen(fstype.encode(), _FSOPEN_CLOEXEC), target)
    try:
        try:
            for key, value in parameters:
                _configure(context, key, value, target)
            _check(_libc.fsconfig(context, _FSCONFIG_CMD_CREATE, None, None, 0), target)
            tree = _check(_libc.fsmount(context, _FSMOUNT_CLOEXEC, attributes), target)
        except OSError as error:
            raise OSError(error.errno, _explanation(context) or os.strerror(error.errno or 0), target) from error
        try:
            _check(_libc.move_mount(tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH), target)
        finally:
            os.close(tree)
    finally:
        os.close(context)


def _configure(context: int, key: str, value: str, target: str) -> None:
    if value:
        result = _libc.fsconfig(context, _FSCONFIG_SET_STRING, key.encode(), os.fsencode(value), 0)
    else:
        result = _libc.fsconfig(context, _FSCONFIG_SET_FLAG, key.encode(), None, 0)
    _check(result, target)


def _explanation(context: int) -> str:
    """The errors that the file system left in its context ("e overlay: …"); the read ends with ENODATA."""
    texts: list[str] = []
    while True:
        try:
            text = os.read(context, _MOST_TEXT).decode(errors="replace").strip()
        except OSError:
            return "; ".join(texts)
        if text.startswith("e "):
            texts.append(text[2:])


def _check(result: int, name: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
    return result
