"""A Python prompt on the machine's console, for whoever looks for a fault in a guest: `debug.guest_console`.

The guest has no shell and no tools, and Python does all that they would: the functions below are those that one misses
first, and everything of the kernel is files. A process of its own, as root, in the guest's own root; vminitd starts it
anew when it has ended (vminitd/console.py).
"""

import code
import os
import sys

from vminitd.boot import RUN_DIR
from vminitd.spawn import PATH

_BANNER = """
qemubox: a Python prompt in the guest's own root, outside of every container. help() says what there is.
"""
_KMSG_BYTES = 8192
_NO_PROGRAM = 127


def main() -> None:
    """Prompt on standard input and output until its end (^D), or `exit()`."""
    # The session's terminal, so that ^C interrupts: the leader of a session gets the one that it opens, tty(4).
    console = os.open(sys.argv[1], os.O_RDWR)
    for descriptor in range(3):
        os.dup2(console, descriptor)
    if console > 2:
        os.close(console)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 - for as long as the process lives
    sys.ps1, sys.ps2 = "qemubox> ", "......> "
    code.interact(_BANNER, local=_functions(), exitmsg="")


def _functions() -> dict[str, object]:
    functions = {each.__name__: each for each in (cat, crun, dmesg, ls, ps, run)}
    return {**functions, "help": explain, "os": os}


def explain() -> None:
    """help(): say what there is; os is there, too."""
    for function in (cat, crun, dmesg, ls, ps, run, explain):
        print(f"  {(function.__doc__ or '').splitlines()[0]}")


def cat(path: str) -> None:
    """cat("/proc/meminfo"): show a file, with what is no text escaped."""
    with open(path, errors="backslashreplace") as file:
        for line in file:
            print(line, end="")


def ls(path: str = "/") -> None:
    """ls("/run"): list a directory, with sizes and where links lead."""
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda each: each.name):
            status = entry.stat(follow_symlinks=False)
            target = f" -> {os.readlink(entry.path)}" if entry.is_symlink() else ""
            print(f"{status.st_mode:06o} {status.st_uid:5} {status.st_gid:5} {status.st_size:12} {entry.name}{target}")


def ps() -> None:
    """ps(): all processes of the machine, those of containers too."""
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            with open(f"/proc/{pid}/stat") as stat, open(f"/proc/{pid}/cmdline", "rb") as words:
                state = stat.read().rpartition(") ")[2][0]
                line = words.read().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended
            continue
        print(f"{pid:7} {state} {line or '[kernel]'}")


def dmesg() -> None:
    """dmesg(): the kernel's log, vminitd's lines in it."""
    descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            try:
                record = os.read(descriptor, _KMSG_BYTES).decode(errors="replace")
            except BlockingIOError:
                return
            except BrokenPipeError:  # overwritten before it was read: the next one is there
                continue
            head, _, text = record.partition(";")
            print(f"[{int(head.split(',')[2]) / 1e6:12.6f}] {text.splitlines()[0]}")
    finally:
        os.close(descriptor)


def run(program: str, *words: str) -> None:
    """run("/usr/bin/crun", "--version"): run a program here, and say how it ended."""
    pid = os.fork()
    if pid == 0:
        try:
            os.execvpe(program, [program, *words], {"PATH": PATH})
        except OSError as error:
            print(f"{program}: {error.strerror}", flush=True)
        finally:
            os._exit(_NO_PROGRAM)
    _, raw = os.waitpid(pid, 0)
    if status := os.waitstatus_to_exitcode(raw):
        print(f"{program}: status {status}")


def crun(*words: str) -> None:
    """crun("list"): crun with the containers of this machine."""
    run("/usr/bin/crun", "--root", f"{RUN_DIR}/crun/state", *words)


if __name__ == "__main__":
    main()
