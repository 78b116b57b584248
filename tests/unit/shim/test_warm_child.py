"""Shims from the service: what they are like, and what becomes of one that nobody wants."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

from tests.unit.shim.observe import until
from tests.unit.shim.program import Answer, Host
from tests.unit.shim.warm_service import WarmService, answer_of, install, parent


def _open_files(pid: int) -> dict[str, str]:
    return {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}


def _status(pid: int, name: str) -> str:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return line.partition(":")[2].strip()
    raise AssertionError(name)


def test_a_start_and_its_end(host: Host, service: WarmService) -> None:
    shim = host.shim()
    assert shim.start() == Answer(0, answer_of(shim), b"")
    assert shim.daemons() == [shim.pid]
    assert parent(shim.pid) == service.pid
    assert os.getsid(shim.pid) == shim.pid
    assert shim.connect().shim_pid == shim.pid
    assert "not forked from the service" not in shim.log_text()
    shim.shutdown()
    until(lambda: service.children() == [], "the service has reaped it")
    assert shim.left() == []
    assert shim.delete().status == 0


def test_it_shows_what_an_executed_shim_shows(host: Host, service: WarmService) -> None:
    """The same words, name, environment as one that `start` has forked."""
    forked, own = host.shim("forked" * 10), host.shim("own")
    assert forked.start().status == 0
    service.stop()
    assert own.start().status == 0
    shown = []
    for shim in (forked, own):
        proc = Path(f"/proc/{shim.pid}")
        words = (proc / "cmdline").read_bytes().replace(shim.container_id.encode(), b"ID")
        shown.append((words, (proc / "environ").read_bytes(), (proc / "comm").read_bytes(), os.readlink(proc / "exe")))
    assert shown[0] == shown[1]
    assert shown[0][0].split(b"\0")[-4:] == [b"-id", b"ID", b"start", b""]


def test_it_has_nothing_of_the_services(host: Host, service: WarmService) -> None:
    """No descriptor but its own, also while others ask; no signal handler; its own lock is the shim's alone."""
    stalled = service.connect()
    shim, other = host.shim(), host.shim("other")
    assert other.start().status == 0
    assert shim.start().status == 0
    shim.connect()
    files = _open_files(shim.pid)
    assert str(shim.directory / "lock") in files.values()
    assert not [name for name in files.values() if name.startswith((str(host.service.parent), str(service.log)))]
    assert {files[fd] for fd in "012"} == {"/dev/null"}
    ours = _open_files(service.pid).values()
    assert not {name for name in files.values() if "[" in name and not name.startswith("anon_inode")} & set(ours)
    assert _status(shim.pid, "SigBlk") == "0" * 16
    # SIGPIPE and SIGXFSZ, as in every Python; handlers: the event loop's SIGINT and SIGTERM.
    assert int(_status(shim.pid, "SigIgn"), 16) == 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    assert int(_status(shim.pid, "SigCgt"), 16) == 1 << (signal.SIGINT - 1) | 1 << (signal.SIGTERM - 1)
    stalled.close()


def test_it_is_like_its_caller(host: Host, service: WarmService) -> None:
    """Limits, umask, priorities and groups are those of `start`, not of the service."""
    shim = host.shim()
    program = """
import os, resource, sys
os.umask(0o027)
os.nice(3)
os.setgroups([7, 4])
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
resource.setrlimit(resource.RLIMIT_NOFILE, (333, 444))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
with open("/proc/self/oom_score_adj", "w") as file:
    file.write("123")
os.execv(sys.argv[1], sys.argv[1:])
"""
    started = shim.run([sys.executable, "-c", program, *shim.words("start")], shim.bootstrap)
    assert started == Answer(0, answer_of(shim), b""), service.text()
    assert parent(shim.pid) == service.pid
    assert resource.prlimit(shim.pid, resource.RLIMIT_NOFILE) == (333, 444)
    assert resource.prlimit(shim.pid, resource.RLIMIT_CORE) == (0, 0)
    assert _status(shim.pid, "Umask") == "0027"
    assert _status(shim.pid, "Groups").split() == ["4", "7"]
    assert os.getpriority(os.PRIO_PROCESS, shim.pid) == os.getpriority(os.PRIO_PROCESS, 0) + 3
    assert os.sched_getaffinity(shim.pid) == {min(os.sched_getaffinity(0))}
    assert Path(f"/proc/{shim.pid}/oom_score_adj").read_text() == "123\n"


def test_an_error_of_the_child_is_the_answer_of_start(host: Host, service: WarmService) -> None:
    shim, again = host.shim(), host.shim()
    shim.start()
    reason = f"a shim for ns/c1 is still running (pid {shim.pid}): delete its task first"
    assert again.start() == Answer(1, b"", f"containerd-shim-qemubox-v1: {reason}".encode())
    assert shim.connect().shim_pid == shim.pid
    assert service.process is not None
    host.config.write_text("[vm]\naccell = 'kvm'\n")
    broken = host.shim("broken").start()
    assert (broken.status, broken.stdout) == (1, b"")
    assert f"{host.config}: unknown key vm.accell".encode() in broken.stderr


def test_an_answer_that_nobody_takes_leaves_nothing(host: Host, service: WarmService) -> None:
    """containerd was killed during `start`."""
    shim = host.shim()
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        shim.words("start"),
        cwd=shim.bundle,
        env=shim.environment,
        input=shim.bootstrap,
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"containerd-shim-qemubox-v1: [Errno 32] Broken pipe")
    until(lambda: shim.left() == [], "nothing is left")
    until(lambda: service.children() == [], "the service has reaped it")


def test_a_daemon_that_cannot_run_says_why_in_containerds_log(host: Host) -> None:
    prefix = host.path / "prefix"
    service = WarmService(host.service, install(prefix))
    (daemon,) = prefix.glob("lib/qemubox/venv/lib/*/site-packages/shim/daemon.py")
    daemon.write_text("def run(*_arguments, **_named): raise RuntimeError('no daemon today')\n")
    service.start()
    try:
        shim = host.shim()
        words = [str(prefix / "bin/containerd-shim-qemubox-v1"), *shim.words("start")[4:]]
        assert shim.run(words, shim.bootstrap) == Answer(0, answer_of(shim), b"")
        text = ""

        def complete() -> bool:
            nonlocal text
            text += shim.log_text()
            return "RuntimeError: no daemon today" in text

        until(complete, "the log has the reason")
        assert text.startswith("the shim cannot run: Traceback")
        assert shim.delete().status == 0
        assert shim.left() == []
    finally:
        service.close()


def test_a_start_that_hangs_up_gets_no_daemon(host: Host, service: WarmService) -> None:
    """Killed before it has said GO: the child undoes everything."""
    shim = host.shim()
    program = """
import os, signal, sys
import shim.warm.message as message
message.GO = b"never"
from shim.entry import main
import shim.warm.ask as ask
def send(sock, data, deadline, send=message.send):
    if data.endswith(b"never"):
        os.kill(os.getpid(), signal.SIGKILL)
    send(sock, data, deadline)
message.send = send
main(sys.argv[1:])
"""
    killed = shim.run([sys.executable, "-c", program, *shim.words("start")[4:]], shim.bootstrap)
    assert killed.status == -9
    until(lambda: service.children() == [], "the child has ended")
    assert shim.left() == []
