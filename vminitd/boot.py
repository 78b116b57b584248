"""From a bare kernel to a machine that can run containers: file systems, cgroups, sysctls, loopback.

The root is a read-only EROFS, so everything that is written lives on tmpfs. No container runs yet, nothing here
waits, and a failure is fatal: a machine without /proc or cgroups must not pretend to be one.
"""

import errno
import fcntl
import os
import resource
import signal
import socket
import struct

from vminitd import log
from vminitd.libc import MS_NODEV, MS_NOEXEC, MS_NOSUID, mount

CGROUP_ROOT = "/sys/fs/cgroup"
RUN_DIR = "/run/qemubox"

_PLAIN = MS_NOSUID | MS_NODEV | MS_NOEXEC
# (type, target, flags, data): the usual places and options, as in systemd's mount-setup.c and the OCI defaults.
_FILE_SYSTEMS = (
    ("proc", "/proc", _PLAIN, ""),
    ("sysfs", "/sys", _PLAIN, ""),
    ("devtmpfs", "/dev", MS_NOSUID, "mode=755"),
    ("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "ptmxmode=666,mode=620,gid=5"),
    ("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777"),
    ("mqueue", "/dev/mqueue", _PLAIN, ""),
    ("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=755"),
    ("tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777"),
    ("cgroup2", CGROUP_ROOT, _PLAIN, "nsdelegate,memory_recursiveprot"),
)
_SYSCTLS = (
    # A whole event is more than the ten lines in five seconds that the kernel lets a process log by default.
    ("kernel/printk_devkmsg", "on\n"),  # devkmsg_sysctl_set_loglvl() insists on the line end
    # As on hosts with containers (systemd, containerd): ping without capabilities, room for many processes and files.
    ("net/ipv4/ping_group_range", "0 2147483647"),
    ("kernel/pid_max", "4194304"),
    ("fs/inotify/max_user_instances", "1024"),
    # No part of a zone is kept from programs: of 8 GiB that was 200 MiB which a container was promised and killed for
    # (docs/decisions/0012). Its limit keeps it from what the kernel needs.
    ("vm/lowmem_reserve_ratio", "0 0 0 0\n"),
    # The kernel sizes these by the memory that it booted with, which is a fraction of what is hot-added.
    ("kernel/threads-max", "1048576"),
    ("fs/file-max", "9223372036854775807"),
    ("fs/inotify/max_user_watches", "524288"),
)
# What a container without limits of its own inherits: what systemd and containerd's unit give on a host. The kernel's
# own for processes and signals, again, are by the memory that it booted with.
_LIMITS = (
    (resource.RLIMIT_NOFILE, 1024, 1 << 20),
    (resource.RLIMIT_NPROC, resource.RLIM_INFINITY, resource.RLIM_INFINITY),
    (resource.RLIMIT_SIGPENDING, 1 << 17, 1 << 17),
)
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_IFREQ = struct.Struct("16sh22x")


def boot() -> None:
    """Does all of it. Raises OSError with the path that failed."""
    os.umask(0o022)
    os.chdir("/")
    mount_all()
    log.to_kernel_log()
    open_standard_streams()
    set_sysctls()
    for limit, soft, hard in _LIMITS:
        resource.setrlimit(limit, (soft, hard))
    enter_own_cgroup()
    loopback_up()
    restore_signals()
    os.makedirs(RUN_DIR, mode=0o711, exist_ok=True)


def mount_all() -> None:
    """Mounts the kernel's file systems; what the kernel has mounted itself (devtmpfs) stays."""
    for fstype, target, flags, data in _FILE_SYSTEMS:
        if not os.path.isdir(target):
            os.mkdir(target, 0o755)
        try:
            mount(fstype, target, fstype, flags, data)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        if not os.path.lexists(f"/dev/{name}"):
            os.symlink(target, f"/dev/{name}")


def open_standard_streams() -> None:
    """Makes sure that 0, 1 and 2 are taken: a kernel without a console leaves them free for any file to fall into."""
    while (fd := os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)) < 3:
        pass
    os.close(fd)


def set_sysctls() -> None:
    """Sets what the kernel has; a kernel built without one of them is not refused for that."""
    for name, value in _SYSCTLS:
        path = f"/proc/sys/{name}"
        if os.path.exists(path):
            write(path, value)


def enter_own_cgroup() -> None:
    """Moves vminitd into a leaf and gives every controller to the groups beside it, where the containers are.

    A group with processes of its own cannot hand controllers down: cgroup-v2.rst, "No Internal Process Constraint".
    """
    own = f"{CGROUP_ROOT}/vminitd"
    os.makedirs(own, exist_ok=True)
    write(f"{own}/cgroup.procs", str(os.getpid()))
    with open(f"{CGROUP_ROOT}/cgroup.controllers") as file:
        controllers = file.read().split()
    write(f"{CGROUP_ROOT}/cgroup.subtree_control", " ".join(f"+{name}" for name in controllers))


def loopback_up() -> None:
    """Sets lo up, which gives it 127.0.0.1 and ::1: netdevice(7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = fcntl.ioctl(sock, _SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0))
        flags: int = _IFREQ.unpack(request)[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, _IFREQ.pack(b"lo", flags | _IFF_UP))


def restore_signals() -> None:
    """The kernel starts PID 1 with a clean slate; what Python changed is put back for children by `spawn`."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    # The kernel signals PID 1 on ctrl-alt-del (SIGINT) if that key were there; nothing in here may end it.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def write(path: str, value: str) -> None:
    """Writes a kernel file in one write(2). The OSError names the file."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} (writing {value!r})", path) from error
    finally:
        os.close(fd)
