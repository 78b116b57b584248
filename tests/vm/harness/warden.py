"""The program that holds a cell open: parent of every process in it.

usage: unshare --mount --propagation private -- python3 -I warden.py DIRECTORY

It gives its mount namespace a fresh /run and /dev/shm, becomes the subreaper
(prctl(2), PR_SET_CHILD_SUBREAPER) of all it starts, so that a shim that daemonises stays
its descendant, and then does as told, one JSON line on standard input for each process
to start, one JSON line back with its pid. At the end of standard input, also when the
test run was killed, it kills all its descendants and ends; the mounts go with it.
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


def prepare(directory: Path) -> None:
    """Fresh file systems where a runtime leaves its traces, and the subreaper's duty."""
    for path, options in (("/run", "mode=755"), ("/dev/shm", "mode=1777")):
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "cell", path], check=True, timeout=30)
    for path in ("/run/lock", "/run/netns"):
        os.mkdir(path)
    os.chdir(directory)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


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
