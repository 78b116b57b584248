"""What exists because of a containerd and its shims: listed before and after, and compared.

Complete listings, not searches for known names: every process of the cell, every mount
of its namespace, everything under its /run and /dev/shm, what lies in qemubox's own
directories, in CNI's and in TMPDIR, loop devices, links and rules of its network, and containerd's own
books. What stays on purpose is named in `_KEPT`, with why.
"""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from harness import firewall
from harness.containerd import Containerd
from harness.deadline import eventually

# Paths that may come into being and stay.
_KEPT: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"/run/containerd/.*\.sock(\.ttrpc)?",  # containerd's own
        r"/run/containerd/fifo/.*",  # a client's own, which removes them unless it is killed
        r"/run/xtables\.lock",  # iptables makes it once per boot
        r"/run/qemubox/accel\b.*",  # the accelerator's probe is answered once per boot
        r"cache/empty/\d+\.ext4",  # an empty file system of that size, to be copied
        # A converted layer, where it came from, and of which directory it is.
        r"cache/layers/(blobs/[0-9a-f]{64}\.erofs|(index|layers)/[0-9a-f]{64})",
        r"/run/qemubox/(service\.sock|lock)",  # the warm parent's, which runs on
        r"/run/qemubox/cni\.lock",  # CNI's chains wait for each other there
        r"/run/qemubox/timeline\.jsonl(\.1)?",  # where each machine's start time went; bounded
        r"tmp/containerd-mount\d+",  # containerd 1.6 removes its own a little later
        r"qbr\d+",  # a bridge outlives its containers; the tests' are all called so
        r"/var/lib/cni/networks/[^/]+/(lock|last_reserved_ip\.\d)",  # host-local's, of a range
        *firewall.KEPT,
    )
)
_SOCKET: Final = re.compile(r"file: /run/containerd/s/[0-9a-f]{64}")
# Directories in which even an empty directory is a trace of a container.
_PER_CONTAINER: Final = ("/run/qemubox", "/run/netns", "data", "cache", "tmp")
# Directories that are made once and are empty between containers, or at first.
_CACHE: Final = ("making", "blobs", "index", "layers")
_STANDING: Final = (
    *("/run/netns", "/run/qemubox", "/run/qemubox/vm", "cache/layers", "cache/empty", "data/writable"),
    *(f"cache/layers/{name}" for name in _CACHE),
)
_SETTLE_DEADLINE_S: Final = 10.0


@dataclass(frozen=True)
class Traces:
    """One listing: (kind, name) pairs."""

    found: frozenset[tuple[str, str]]

    def since(self, earlier: "Traces") -> list[str]:
        """What is here and was not in `earlier`, a line each."""
        return sorted(f"{kind}: {name}" for kind, name in self.found - earlier.found)


def take(containerd: Containerd) -> Traces:
    """List everything now."""
    cell = containerd.cell
    ours = (containerd.pid, containerd.service.pid)
    found = {("process", _describe(process)) for process in cell.processes() if process.pid not in ours}
    found |= {("mount", mount) for mount in _mounts(cell.pid)}
    for inside in ("/run", "/dev/shm", "/var/lib/cni"):
        found |= {("file", path) for path in _files(cell.path(inside), inside)}
    for directory, shown in (
        (containerd.qemubox.data, "data"),
        (containerd.qemubox.cache, "cache"),
        (cell.directory / "tmp", "tmp"),
    ):
        found |= {("file", path) for path in _files(directory, shown)}
    found |= {("loop device", device) for device in _loop_devices(cell.directory)}
    found |= {("network link", name) for name in os.listdir(cell.path("/sys/class/net"))}
    found |= {("firewall", rule) for rule in firewall.rules(cell)}
    found |= {("containerd's", entry) for entry in _books(containerd)}
    return Traces(frozenset(item for item in found if not _kept(item[1])))


def assert_nothing_new(
    containerd: Containerd, before: Traces, *, by_runc: bool = False, after_gc: bool = False
) -> None:
    """Fail with a list of all that is there now and was not before; what is just going away gets its time.

    The socket of a shim of runc's that was killed stays: its `delete` does not know of it. A writable image that was
    kept is left behind, too, unless the test has expected it, and lets `qemubox gc` remove it (`after_gc`).
    """
    left: list[str] = []

    def nothing_left() -> bool:
        if after_gc:
            containerd.qemubox.command("gc").check_returncode()
        left[:] = [line for line in take(containerd).since(before) if not (by_runc and _SOCKET.fullmatch(line))]
        return not left

    try:
        eventually(nothing_left, "nothing is left behind", _SETTLE_DEADLINE_S)
    except AssertionError:
        raise AssertionError("left behind:\n" + "\n".join(f"  {line}" for line in left)) from None


def _kept(name: str) -> bool:
    return any(pattern.fullmatch(name) for pattern in _KEPT)


def _describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline()) or process.name()}"
    except psutil.Error:  # it ended while we looked, or is about to
        return f"{process.pid} (ending)"


def _mounts(pid: int) -> list[str]:
    """The mounts that a process sees (proc_pid_mountinfo(5)): where, what type, from what."""
    lines = Path(f"/proc/{pid}/mountinfo").read_text(errors="replace").splitlines()
    mounts = []
    for line in lines:
        left, _, right = line.partition(" - ")
        fstype, source = right.split(" ")[:2]
        mounts.append(f"{left.split(' ')[4]} ({fstype} from {source})")
    return mounts


def _files(directory: Path, shown: str) -> list[str]:
    """Everything below `directory`, on its own file system, with its type; empty directories where they matter.

    Not by os.path.ismount: it resolves links, and /proc/PID/root is one, to what is there for us and not in the cell.
    """
    found = []
    for name in _listing(directory):
        path, display = directory / name, f"{shown}/{name}"
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(status.st_mode):
            elsewhere = status.st_dev != directory.stat().st_dev
            inner = [] if elsewhere else _files(path, display)
            found += inner
            if not inner and display.startswith(_PER_CONTAINER):
                found += [] if display in _STANDING else [f"{display}/"]
        else:
            found.append(display)
    return found


def _listing(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _loop_devices(directory: Path) -> list[str]:
    """Loop devices over files of the cell."""
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            file = backing.read_text().strip()
        except OSError:  # it was detached while we looked
            continue
        if file.startswith(str(directory)):
            found.append(f"{backing.parts[3]} over {file}")
    return found


def _books(containerd: Containerd) -> list[str]:
    """Containers, tasks, leases and active snapshots of every namespace."""
    found = []
    for namespace in containerd.ctr("namespaces", "ls", "-q").text.split():
        for kind in ("containers", "tasks", "leases"):
            names = containerd.ctr(kind, "ls", "-q", namespace=namespace).text.split()
            found += [f"{kind} {namespace}/{name}" for name in names]
        for snapshotter in sorted(containerd.snapshotters):
            lines = containerd.ctr("snapshots", "--snapshotter", snapshotter, "ls", namespace=namespace).text
            active = [line.split()[0] for line in lines.splitlines() if line.split()[-1] == "Active"]
            found += [f"snapshot {namespace}/{name} ({snapshotter})" for name in active]
    return found
