"""Runs as PID 1 on the guest's kernel and tries what containers need of it, and says "ok NAME" or "FAIL NAME why".

Only what the guest's image has may be imported. Each function is a check: it is named as itself and fails by an
exception. The disks: an empty ext4, and a GPT of two EROFS partitions, the first compressed.
"""

import ctypes
import os
import socket
import struct
from collections.abc import Callable

libc = ctypes.CDLL(None, use_errno=True)
CHECKS: list[Callable[[], None]] = []
MS_RDONLY = 1


def check(function: Callable[[], None]) -> Callable[[], None]:
    CHECKS.append(function)
    return function


def call(result: int) -> int:
    """Turns a C function's -1 into an OSError."""
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def syscall(number: int, *arguments: object) -> int:
    values = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return call(libc.syscall(number, *values))


def mount(source: str, target: str, fstype: str, flags: int = 0, options: str = "") -> None:
    os.makedirs(target, exist_ok=True)
    call(libc.mount(source.encode(), target.encode(), fstype.encode(), flags, options.encode()))


def read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def require(condition: bool, said: object = "") -> None:
    if not condition:
        raise AssertionError(said)


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def set_attributes(path: str, *names: str) -> None:
    # An access ACL that gives user 1000 more than the mode does: linux/posix_acl_xattr.h.
    acl = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", *entry)
        for entry in ((1, 6, 2**32 - 1), (2, 7, 1000), (4, 4, 2**32 - 1), (16, 7, 2**32 - 1), (32, 4, 2**32 - 1))
    )
    open(path, "w").close()
    for name in names:
        os.setxattr(path, name, acl if name.startswith("system.") else b"1")


ATTRIBUTES = ("trusted.overlay.opaque", "security.capability_like", "system.posix_acl_access", "user.name")


@check
def pseudo_file_systems() -> None:
    mount("proc", "/proc", "proc")
    mount("sysfs", "/sys", "sysfs")
    mount("tmpfs", "/run", "tmpfs")
    mount("devpts", "/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666")
    mount("mqueue", "/dev/mqueue", "mqueue")
    mount("binfmt_misc", "/proc/sys/fs/binfmt_misc", "binfmt_misc")
    mount("bpf", "/sys/fs/bpf", "bpf")
    mount("hugetlbfs", "/run/huge", "hugetlbfs")


@check
def wall_clock_is_set_at_boot() -> None:
    require(os.stat("/run").st_mtime > 1_700_000_000)


@check
def all_cgroup_controllers() -> None:
    mount("cgroup2", "/sys/fs/cgroup", "cgroup2")
    controllers = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "misc"]
    require(set(controllers) <= set(read("/sys/fs/cgroup/cgroup.controllers").split()))
    write("/sys/fs/cgroup/cgroup.subtree_control", " ".join(f"+{name}" for name in controllers))
    os.mkdir("/sys/fs/cgroup/probe")


@check
def cgroup_limits_and_figures() -> None:
    wanted = (
        "cpu.max cpu.weight cpu.pressure cpuset.cpus memory.max memory.swap.max memory.oom.group memory.pressure "
        "io.max io.weight io.pressure pids.max hugetlb.2MB.max misc.max cgroup.freeze cgroup.kill"
    )
    missing = set(wanted.split()) - set(os.listdir("/sys/fs/cgroup/probe"))
    require(not missing, missing)
    write("/sys/fs/cgroup/probe/cpu.max", "50000 100000")


@check
def device_rules_by_bpf() -> None:
    allow = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 1, 0x95, 0, 0, 0)  # r0 = 1; exit
    code, gpl = ctypes.create_string_buffer(allow), ctypes.create_string_buffer(b"GPL")
    program = struct.pack("<IIQQ", 15, 2, ctypes.addressof(code), ctypes.addressof(gpl)).ljust(128, b"\0")
    loaded = syscall(321, 5, ctypes.create_string_buffer(program), 128)
    group = os.open("/sys/fs/cgroup/probe", os.O_RDONLY)
    attach = struct.pack("<IIII", group, loaded, 6, 2).ljust(128, b"\0")
    syscall(321, 8, ctypes.create_string_buffer(attach), 128)


@check
def all_namespaces() -> None:
    for name, flag in {
        "cgroup": 0x02000000,
        "ipc": 0x08000000,
        "mnt": 0x00020000,
        "net": 0x40000000,
        "pid": 0x20000000,
        "time": 0x00000080,
        "user": 0x10000000,
        "uts": 0x04000000,
    }.items():
        if (pid := os.fork()) == 0:
            os._exit(-libc.unshare(flag))
        require(exit_code(pid) == 0, name)


@check
def seccomp_filters() -> None:
    require("trap errno user_notif" in read("/proc/sys/kernel/seccomp/actions_avail"))
    if (pid := os.fork()) == 0:
        allow = ctypes.create_string_buffer(struct.pack("<HBBI", 6, 0, 0, 0x7FFF0000))
        os._exit(-libc.prctl(22, 2, ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", 1, ctypes.addressof(allow)))))
    require(exit_code(pid) == 0)


@check
def system_calls() -> None:
    syscall(425, 4, ctypes.create_string_buffer(120))  # io_uring_setup
    syscall(206, 8, ctypes.byref(ctypes.c_ulong(0)))  # io_setup
    syscall(323, 1)  # userfaultfd
    syscall(324, 0, 0, 0)  # membarrier
    syscall(250, 0, -3, 1)  # keyctl
    syscall(29, 0, 4096, 0o1600)  # shmget
    syscall(64, 0, 1, 0o1600)  # semget
    syscall(240, ctypes.c_char_p(b"q"), 0o102, 0o600, 0)  # mq_open
    syscall(300, 0, 0)  # fanotify_init
    syscall(310, os.getpid(), 0, 0, 0, 0, 0)  # process_vm_readv
    syscall(312, os.getpid(), os.getpid(), 2, 0, 0)  # kcmp
    syscall(154, 0, 0, 0)  # modify_ldt


@check
def programs_for_i386() -> None:
    code = bytes.fromhex("b801000000bb2a000000cd80")  # exit(42) by int 0x80
    at = 0x08048000
    header = struct.pack("<16sHHIIIIIHHHHHH", b"\x7fELF\1\1\1", 2, 3, 1, at + 84, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    segment = struct.pack("<IIIIIIII", 1, 0, at, at, 84 + len(code), 84 + len(code), 5, 4096)
    with open("/run/i386", "wb") as file:
        file.write(header + segment + code)
    os.chmod("/run/i386", 0o755)
    if (pid := os.fork()) == 0:
        os.execv("/run/i386", ["i386"])
    require(exit_code(pid) == 42)


@check
def attributes_on_tmpfs() -> None:
    set_attributes("/run/attributes", *ATTRIBUTES)


@check
def attributes_on_ext4() -> None:
    mount("/dev/vdc", "/run/rw", "ext4")
    set_attributes("/run/rw/attributes", *ATTRIBUTES)


@check
def overlay_with_metacopy() -> None:
    for name in ("upper", "work", "merged"):
        os.mkdir(f"/run/rw/{name}")
    directories = "lowerdir=/usr,upperdir=/run/rw/upper,workdir=/run/rw/work"
    mount("overlay", "/run/rw/merged", "overlay", 0, f"{directories},metacopy=on,redirect_dir=on")
    os.chmod("/run/rw/merged/bin/crun", 0o700)
    os.getxattr("/run/rw/upper/bin/crun", "trusted.overlay.metacopy")


@check
def overlay_with_index() -> None:
    for name in ("upper2", "work2", "merged2"):
        os.mkdir(f"/run/rw/{name}")
    directories = "lowerdir=/usr,upperdir=/run/rw/upper2,workdir=/run/rw/work2"
    mount("overlay", "/run/rw/merged2", "overlay", 0, f"{directories},index=on,xino=on")


@check
def layers_as_partitions() -> None:
    mount("/dev/vdd1", "/run/compressed", "erofs", MS_RDONLY)
    mount("/dev/vdd2", "/run/plain", "erofs", MS_RDONLY)
    require(read("/run/compressed/words") == read("/run/plain/words") != "")


@check
def erofs_in_a_file() -> None:
    with open("/dev/vdd2", "rb") as disk, open("/run/rw/image", "wb") as image:
        image.write(disk.read())
    mount("/run/rw/image", "/run/of-a-file", "erofs", MS_RDONLY)


@check
def devices() -> None:
    for name in ("fuse", "loop-control", "net/tun", "autofs", "hwrng", "vsock"):
        require(os.path.exists(f"/dev/{name}"), name)
    for name in ("mem", "port", "kmem"):
        require(not os.path.exists(f"/dev/{name}"), name)


@check
def figures() -> None:
    for path in ("pressure/cpu", "self/io", "self/schedstat", "self/smaps_rollup", "thread-self/children", "config.gz"):
        require(os.path.exists(f"/proc/{path}"), path)


@check
def no_links_but_loopback() -> None:
    require([name for _, name in socket.if_nameindex()] == ["lo"], socket.if_nameindex())


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("<HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


@check
def links() -> None:
    route = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    route.bind((0, 0))

    def add(kind: str, data: bytes = b"", parent: str = "") -> None:
        info = attribute(1, kind.encode()) + (attribute(2, data) if data else b"")
        body = bytes(16) + attribute(3, f"{kind}9".encode() + b"\0") + attribute(18, info)
        if parent:
            body += attribute(5, struct.pack("<I", socket.if_nametoindex(parent)))
        route.send(struct.pack("<IHHII", 16 + len(body), 16, 0x605, 1, 0) + body)
        require(struct.unpack_from("<i", route.recv(8192), 16)[0] == 0, kind)

    for kind in ("dummy", "bridge", "veth"):
        add(kind)
    add("macvlan", attribute(1, struct.pack("<I", 4)), "dummy9")
    add("vlan", attribute(1, struct.pack("<H", 5)), "dummy9")
    add("vxlan", attribute(1, struct.pack("<I", 7)), "dummy9")
    add("ipvlan", parent="veth9")


@check
def nftables() -> None:
    netfilter = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)

    def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
        return struct.pack("<IHHII", 16 + len(body), kind, flags, sequence, 0) + body

    for number, family in {1: "inet", 2: "ip", 10: "ip6", 7: "bridge", 5: "netdev"}.items():
        table = struct.pack("<BBH", number, 0, 0) + attribute(1, b"probe\0") + attribute(2, bytes(4))
        subsystem = struct.pack("<BBH", 0, 0, 10 << 8)
        netfilter.send(message(16, 1, 1, subsystem) + message(10 << 8, 0x605, 2, table) + message(17, 1, 3, subsystem))
        require(struct.unpack_from("<i", netfilter.recv(8192), 16)[0] == 0, family)


@check
def iptables() -> None:
    for family, level in ((socket.AF_INET, 0), (socket.AF_INET6, 41)):
        raw = socket.socket(family, socket.SOCK_RAW, 255)
        for table in (b"filter", b"nat", b"mangle", b"raw"):
            asked = ctypes.create_string_buffer(table, 84)
            call(libc.getsockopt(raw.fileno(), level, 64, asked, ctypes.byref(ctypes.c_uint(84))))


@check
def iptables_extensions() -> None:
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 255)
    matches = (
        "addrtype comment conntrack hashlimit icmp limit mark multiport owner physdev recent socket state statistic tcp"
    )
    targets = "CONNMARK CT DNAT LOG MARK MASQUERADE REDIRECT REJECT SNAT TCPMSS TPROXY"

    def has(option: int, name: str, revision: int) -> bool:
        asked = ctypes.create_string_buffer(struct.pack("<29sB", name.encode(), revision), 30)
        answer: int = libc.getsockopt(raw.fileno(), 0, option, asked, ctypes.byref(ctypes.c_uint(30)))
        return answer == 0

    for option, names in ((66, matches), (67, targets)):
        for name in names.split():
            require(any(has(option, name, revision) for revision in range(4)), name)


@check
def the_kernel_log_is_the_machines() -> None:
    require(read("/proc/sys/kernel/dmesg_restrict") == "1")


for function in CHECKS:
    try:
        function()
    except BaseException as error:  # noqa: BLE001  each check is told by itself
        print("FAIL", function.__name__, type(error).__name__, error, flush=True)
    else:
        print("ok", function.__name__, flush=True)
print("probed", len(CHECKS), flush=True)
os.sync()
libc.reboot(0x4321FEDC)  # LINUX_REBOOT_CMD_POWER_OFF
