"""The program that holds a cell open: parent of every process in it.

usage: unshare --mount --net --propagation private -- python3 -I warden.py DIRECTORY

It gives its mount namespace a fresh /run and /dev/shm, a /sys of its own network, and /etc, /opt and /var/lib in which
what is written stays in the cell, for CNI's directories; sets its loopback up; becomes the subreaper
(prctl(2), PR_SET_CHILD_SUBREAPER) of all it starts, so that a shim that daemonises stays
its descendant, and then does as told, one JSON line on standard input for each process
to start, one JSON line back with its pid. At the end of standard input, also when the
test run was killed, it kills all its descendants and ends; mounts and network go with it.
"""

import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
KILL_DEADLINE_S = 10.0
PROGRAM_DEADLINE_S = 30.0
STAGE = "/run/stage"


def prepare(directory: Path) -> None:
    """Fresh file systems where a runtime leaves its traces, a network, and the subreaper's duty."""
    for path, options in (("/run", "mode=755"), ("/dev/shm", "mode=1777")):
        run("mount", "-t", "tmpfs", "-o", options, "cell", path)
    os.mkdir("/run/lock")
    prepare_network()
    os.chdir(directory)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def prepare_network() -> None:
    """The cell's own links in /sys, its loopback up, and empty directories where CNI has its things.

    /etc/cni/net.d, /opt/cni/bin and /var/lib/cni cannot be chosen in `ctr run --cni`.
    """
    run("ip", "link", "set", "lo", "up")
    stage_over("/sys", "-t", "sysfs", "cell")
    for path in ("/etc", "/opt", "/var/lib"):
        overlay(path)
    for path in ("/etc/cni", "/opt/cni", "/var/lib/cni"):
        os.makedirs(path, exist_ok=True)
        run("mount", "-t", "tmpfs", "-o", "mode=755", "cell", path)
    for path in ("/etc/cni/net.d", "/opt/cni/bin", "/run/netns"):
        os.mkdir(path)
    # As the first `ip netns add` leaves it for all that come later: ip-netns(8).
    run("mount", "--bind", "/run/netns", "/run/netns")
    # As systemd leaves it: what is unmounted is so in the mount namespaces that were made meanwhile, too.
    run("mount", "--make-rshared", "/")


def overlay(path: str) -> None:
    """What is written below `path` from now on is kept in memory, and seen in the cell alone."""
    memory = Path("/run/memory")
    memory.mkdir()
    run("mount", "-t", "tmpfs", "-o", "mode=755", "cell", str(memory))
    for name in ("upper", "work"):
        (memory / name).mkdir()
    layers = f"lowerdir={path},upperdir={memory}/upper,workdir={memory}/work"
    stage_over(path, "-t", "overlay", "-o", layers, "cell")
    run("umount", str(memory))  # the overlay holds it
    memory.rmdir()


def stage_over(path: str, *arguments: str) -> None:
    """Mount something else in the place of `path`, with all that is mounted below it."""
    os.mkdir(STAGE)
    run("mount", *arguments, STAGE)
    for below in mounts_below(path):
        run("mount", "--rbind", below, STAGE + below.removeprefix(path))
        run("umount", "--lazy", "--recursive", below)
    run("mount", "--move", STAGE, path)
    os.rmdir(STAGE)


def mounts_below(path: str) -> list[str]:
    """The mount points below `path`, less those below others (proc_pid_mountinfo(5))."""
    points = sorted({line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()})
    found: list[str] = []
    for point in points:
        if point.startswith(f"{path}/") and not (found and point.startswith(f"{found[-1]}/")):
            found.append(point)
    return found


def run(*command: str) -> None:
    """Run a program to its end. Raises CalledProcessError."""
    subprocess.run(command, check=True, timeout=PROGRAM_DEADLINE_S)


def start(order: dict[str, object]) -> int:
    """Start what `order` says: argv, env, log (standard output and error are appended to it)."""
    argv, env, log = order["argv"], order["env"], order["log"]
    assert isinstance(argv, list)
    assert isinstance(env, dict)
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        out = os.open(str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.closerange(3, 1024)
        os.execvpe(argv[0], argv, env)
    finally:
        os._exit(127)


def reap() -> None:
    """Collect every child that has ended, adopted ones too."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def kill_all() -> None:
    """Kill children until there are none: those of a killed child become ours."""
    deadline = time.monotonic() + KILL_DEADLINE_S
    while time.monotonic() < deadline:
        for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def obey() -> None:
    """Carry out orders until there are no more."""
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(woken, selectors.EVENT_READ)
    pending = b""
    while True:
        for key, _ in selector.select():
            if key.fd == woken:
                os.read(woken, 4096)
                reap()
                continue
            data = os.read(0, 1 << 16)
            if not data:
                return
            pending += data
            while b"\n" in pending:
                line, _, pending = pending.partition(b"\n")
                os.write(1, json.dumps({"pid": start(json.loads(line))}).encode() + b"\n")


def main() -> None:
    """Prepare, say so, obey, clean up."""
    prepare(Path(sys.argv[1]))
    os.write(1, b'{"pid": 0}\n')
    try:
        obey()
    finally:
        kill_all()


if __name__ == "__main__":
    main()
