"""Runs as PID 1 in a test's virtual machine, in vminitd's place: answers what it sees, and does what it is told.

Dials as vminitd does (api/guest.proto): host CID 2, port = its own CID, zeros first. Then
one command a line, each answered by one line of JSON. It imports nothing of the project:
the test puts this text on a disk, and the guest's own Python runs it from there.
"""

import ctypes
import fcntl
import hashlib
import json
import os
import socket
import struct

_GET_LOCAL_CID = 0x7B9  # linux/vm_sockets.h, IOCTL_VM_SOCKETS_GET_LOCAL_CID
_POWER_OFF = 0x4321FEDC  # linux/reboot.h
_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, fstype: str, flags: int = 0) -> str:
    """Empty, or why it failed."""
    failed = _libc.mount(source.encode(), target.encode(), fstype.encode(), flags, None)
    return os.strerror(ctypes.get_errno()) if failed else ""


def dial(token: bytes) -> socket.socket:
    """A connection to the host that begins with `token`; waits for the vsock device to appear, and says so."""
    said = False
    while True:
        try:
            with open("/dev/vsock") as device:
                cid = struct.unpack("I", fcntl.ioctl(device, _GET_LOCAL_CID, bytes(4)))[0]
            connection = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
            connection.connect((2, cid))
        except OSError:
            if not said:
                with open("/dev/kmsg", "w") as console:
                    console.write("<3>agent: waiting for a host\n")
                said = True
            uevents.recv(8192)
        else:
            connection.sendall(token)
            return connection


def entries(directory: str, prefix: str) -> list[str]:
    return [f"{directory}/{name}" for name in sorted(os.listdir(directory)) if name.startswith(prefix)]


def text(path: str) -> str:
    with open(path) as file:
        return file.read().strip()


def see() -> dict[str, object]:
    """Disks by serial, interfaces by MAC, processors and memory."""
    disks = {}
    for path in entries("/sys/block", "vd"):
        name = os.path.basename(path)
        disks[text(f"{path}/serial")] = {
            "name": name,
            "read_only": text(f"{path}/ro") == "1",
            "bytes": int(text(f"{path}/size")) * 512,
            "partitions": len(entries(path, name)),
        }
    return {
        "disks": disks,
        "macs": [text(f"{path}/address") for path in entries("/sys/class/net", "eth")],
        "present": text("/sys/devices/system/cpu/present"),
        "online": text("/sys/devices/system/cpu/online"),
        "memory_kib": int(text("/proc/meminfo").split()[1]),
    }


def layer_names(device: str, count: int) -> list[str]:
    """Mount partitions 1 to `count`; what the file `name` in each says, or why it cannot be read."""
    names = []
    for number in range(1, count + 1):
        os.makedirs(f"/run/{number}", exist_ok=True)
        failure = mount(f"/dev/{device}{number}", f"/run/{number}", "erofs", 1)
        names.append(failure or text(f"/run/{number}/name"))
    return names


def layer_names_of(device: str) -> str:
    """Mount a disk as it is and unmount it; what its file `name` says, or why it cannot be read."""
    os.makedirs("/run/whole", exist_ok=True)
    failure = mount(f"/dev/{device}", "/run/whole", "erofs", 1)
    if failure:
        return failure
    name = text("/run/whole/name")
    _libc.umount2(b"/run/whole", 0)
    return name


def write(device: str, offset: int, count: int, byte: int) -> str:
    """Write `count` equal bytes and flush. Empty, or why it failed."""
    fd = os.open(f"/dev/{device}", os.O_WRONLY)
    try:
        os.pwrite(fd, bytes([byte]) * count, offset)
        os.fsync(fd)
    except OSError as error:
        return os.strerror(error.errno or 0)
    finally:
        os.close(fd)
    return ""


def discard(device: str, offset: int, count: int) -> None:
    """Give blocks back (linux/fs.h, BLKDISCARD)."""
    with open(f"/dev/{device}", "r+b", buffering=0) as file:
        fcntl.ioctl(file, 0x1277, struct.pack("QQ", offset, count))


def send(token: str, count: int) -> str:
    """Dial, send `count` bytes in large pieces, wait for the host to close. Their checksum."""
    connection = dial(bytes.fromhex(token))
    data = os.urandom(1 << 20) * (count >> 20)
    connection.sendall(data)
    connection.recv(1)
    connection.close()
    return hashlib.sha256(data).hexdigest()


def receive(token: str, count: int) -> str:
    """Dial and read `count` bytes. Their checksum."""
    connection, digest = dial(bytes.fromhex(token)), hashlib.sha256()
    while count:
        data = connection.recv(1 << 18)
        if not data:
            return f"{count} bytes are missing"
        digest.update(data)
        count -= len(data)
    connection.close()
    return digest.hexdigest()


def _settings(name: str, request: int, value: bytes) -> None:
    """One of netdevice(7)'s."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, request, struct.pack("16s24s", name.encode(), value))


def bring_up(mac: str, address: str, mtu: int) -> dict[str, object]:
    """Give the interface of that MAC address an address of a /24 and an MTU. What its driver made it like."""
    (name,) = (os.path.basename(path) for path in entries("/sys/class/net", "eth") if text(f"{path}/address") == mac)
    found = {"name": name, "mtu": int(text(f"/sys/class/net/{name}/mtu")), "queues": channels(name)}
    _settings(name, 0x8922, struct.pack("i", mtu))
    _settings(name, 0x8916, struct.pack("HH4s", socket.AF_INET, 0, socket.inet_aton(address)))
    _settings(name, 0x891C, struct.pack("HH4s", socket.AF_INET, 0, socket.inet_aton("255.255.255.0")))
    _settings(name, 0x8914, struct.pack("H", 1))
    return found


def channels(name: str, wanted: int = 0) -> list[int]:
    """How many pairs of queues the driver could use and does (linux/ethtool.h, struct ethtool_channels).

    If `wanted`, it is told to use so many.
    """
    asked = ctypes.create_string_buffer(struct.pack("9I", 0x3D if wanted else 0x3C, *([0] * 7), wanted))
    _settings(name, 0x8946, struct.pack("P", ctypes.addressof(asked)))
    _, _, _, _, most, _, _, _, used = struct.unpack("9I", asked.raw[:36])
    return [most, used]


def exchange(host: str, port: int, count: int) -> list[str]:
    """By TCP: send `count` bytes, then read to the end. The checksums of both."""
    data = os.urandom(1 << 20) * (count >> 20)
    digest = hashlib.sha256()
    with socket.socket() as connection:
        connection.settimeout(60)
        connection.connect((host, port))
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while piece := connection.recv(1 << 18):
            digest.update(piece)
    return [hashlib.sha256(data).hexdigest(), digest.hexdigest()]


def echoes(host: str, port: int, sizes: list[int]) -> list[bool]:
    """By UDP: whether a datagram of each size comes back as it was."""
    same = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(30)
        sock.connect((host, port))
        for size in sizes:
            data = os.urandom(size)
            sock.send(data)
            same.append(sock.recv(65536) == data)
    return same


def turned_away(token: str) -> bool:
    """Whether the host closes a connection that begins so."""
    connection = dial(bytes.fromhex(token))
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def panic() -> None:
    with open("/proc/sysrq-trigger", "w") as file:
        file.write("c")


def power_off() -> None:
    _libc.reboot(_POWER_OFF)


for fstype, target in (("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/run")):
    mount(fstype, target, fstype)
uevents = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15)  # NETLINK_KOBJECT_UEVENT
uevents.bind((0, 1))
control = dial(bytes(16))
COMMANDS = (
    *(see, layer_names, layer_names_of, write, discard, send, receive, turned_away, panic, power_off, os._exit),
    *(bring_up, channels, exchange, echoes),
)
commands = {function.__name__: function for function in COMMANDS}
for line in control.makefile("rb"):
    command, *arguments = json.loads(line)
    control.sendall(json.dumps(commands[command](*arguments)).encode() + b"\n")
