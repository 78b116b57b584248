"""Shims from the service: what they are like, and that there is one whatever becomes of the service."""

import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shim.warm import message
from tests.unit.shim.observe import until
from tests.unit.shim.program import Answer, Host, Shim
from tests.unit.shim.warm_service import WarmService, hung_up, install


@pytest.fixture
def service(host: Host) -> Iterator[WarmService]:
    service = WarmService(host.service)
    service.start()
    yield service
    service.close()


def _json(shim: Shim) -> bytes:
    address = f"unix://{shim.socket}"
    return json.dumps({"version": 3, "address": address, "protocol": "ttrpc"}, separators=(",", ":")).encode()


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])


def _open_files(pid: int) -> dict[str, str]:
    return {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}


def _status(pid: int, name: str) -> str:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return line.partition(":")[2].strip()
    raise AssertionError(name)


def test_a_start_and_its_end(host: Host, service: WarmService) -> None:
    shim = host.shim()
    assert shim.start() == Answer(0, _json(shim), b"")
    assert shim.daemons() == [shim.pid]
    assert _parent(shim.pid) == service.pid
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
    paths = {name for name in files.values() if name.startswith("/") and name != "/dev/null"}
    assert paths == {str(shim.directory / "lock"), str(shim.bundle / "log")} & set(files.values())
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
    assert started == Answer(0, _json(shim), b""), service.text()
    assert _parent(shim.pid) == service.pid
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
    assert shim.left() == []
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
        assert shim.run(words, shim.bootstrap) == Answer(0, _json(shim), b"")
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


@pytest.mark.parametrize("sent", [b"", b"\0\0", b"\0\0\0\5GET /", b"\xff" * 64])
def test_a_client_that_stalls_or_talks_nonsense_disturbs_nobody(host: Host, service: WarmService, sent: bytes) -> None:
    clients = [service.connect() for _ in range(20)]
    for client in clients:
        client.sendall(sent)
    shim = host.shim()
    began = time.monotonic()
    assert shim.start().status == 0
    assert _parent(shim.pid) == service.pid
    for client in clients:
        assert hung_up(client)
        client.close()
    assert time.monotonic() - began < 10
    until(lambda: service.children() == [shim.pid], "the service has reaped the rest")


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


def test_without_a_service(host: Host) -> None:
    shim, told = host.shim(), host.shim("told")
    assert shim.start() == Answer(0, _json(shim), b"")
    assert told.start(environment={**told.environment, "QEMUBOX_SERVICE": ""}).status == 0
    for each, reason in ((shim, "No such file or directory"), (told, "QEMUBOX_SERVICE is empty")):
        assert each.connect().shim_pid == each.pid
        text = each.log_text()
        assert "not forked from the service" in text
        assert reason in text


def test_a_service_that_hangs_is_not_waited_for(host: Host, service: WarmService) -> None:
    """And when it goes on, its late child makes no second shim."""
    os.kill(service.pid, signal.SIGSTOP)
    shim = host.shim()
    began = time.monotonic()
    assert shim.start() == Answer(0, _json(shim), b"")
    assert time.monotonic() - began < 4
    os.kill(service.pid, signal.SIGCONT)
    service.until_logged("a connection that asks for nothing")
    until(lambda: service.children() == [], "the late child has ended")
    assert shim.daemons() == [shim.pid]
    assert shim.connect().shim_pid == shim.pid


def test_killed_at_any_moment_there_is_exactly_one_daemon(host: Host, service: WarmService) -> None:
    """kill -9 of the service at a moment of chance during each of 30 starts."""
    from_service = 0
    for number in range(30):
        shim = host.shim(f"c{number}")
        delay_s = random.uniform(0, 0.06)
        victim = service.pid
        killer = threading.Timer(delay_s, os.kill, (victim, signal.SIGKILL))
        killer.start()
        started = shim.start()
        killer.join()
        assert service.process is not None
        service.process.wait()
        context = f"number {number}, killed after {delay_s:.4f} s"
        assert started == Answer(0, _json(shim), b""), context
        assert shim.connect().shim_pid == shim.pid, context
        until(lambda shim=shim: shim.daemons() == [shim.pid], f"one daemon: {context}")  # type: ignore[misc]
        from_service += "not forked from the service" not in shim.log_text()
        shim.shutdown()
        until(lambda shim=shim: shim.left() == [], f"nothing is left: {context}")  # type: ignore[misc]
        service.start()
    assert service.stop() == 0
    assert not host.service.exists()
    assert from_service < 30


def test_its_end_by_signal_leaves_shims_running(host: Host, service: WarmService) -> None:
    shim = host.shim()
    shim.start()
    assert service.stop() == 0
    assert os.listdir(host.service.parent) == []
    assert "told to end" in service.text()
    assert shim.connect().shim_pid == shim.pid
    service.start()
    other = host.shim("other")
    other.start()
    assert service.stop(signal.SIGKILL) == -9
    assert other.connect().shim_pid == other.pid
    service.start()  # over what the killed one left
    third = host.shim("third")
    third.start()
    assert _parent(third.pid) == service.pid


def test_a_second_service_is_refused(service: WarmService) -> None:
    second = subprocess.run(
        [*service.command, "service"],
        env={"QEMUBOX_SERVICE": str(service.socket)},
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 1
    assert f"a service serves at {service.socket} already (pid {service.pid})".encode() in second.stderr
    service.connect().close()


def test_only_root_may_connect(service: WarmService) -> None:
    assert service.socket.stat().st_mode & 0o777 == 0o600
    service.socket.chmod(0o666)
    program = (
        "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX);"
        "s.connect(sys.argv[1]); print(s.recv(9))"
    )
    service.socket.parent.parent.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", program, service.socket], capture_output=True, timeout=30, check=False)
    assert done.stdout == b"b''\n", done.stderr
    service.until_logged("somebody who is not root")
    assert service.children() == []


def test_a_start_elsewhere_makes_its_shim_itself(host: Host, service: WarmService) -> None:
    """In another mount, pid or network namespace, or with less rights."""
    for number, unshare in enumerate((("--mount",), ("--net",), ("--ipc",))):
        shim = host.shim(f"c{number}")
        started = shim.run(["unshare", *unshare, "--", *shim.words("start")], shim.bootstrap)
        assert started == Answer(0, _json(shim), b"")
        assert _parent(shim.pid) != service.pid
        assert shim.connect().shim_pid == shim.pid
    for words in ("mnt namespace", "net namespace", "ipc namespace"):
        service.until_logged(words)
    shim = host.shim("less")
    started = shim.run(["setpriv", "--no-new-privs", "--", *shim.words("start")], shim.bootstrap)
    assert started.status == 0
    assert _parent(shim.pid) != service.pid
    service.until_logged("NoNewPrivs")


def test_a_start_in_another_pid_namespace_makes_its_shim_itself(host: Host, service: WarmService) -> None:
    shim = host.shim()
    words = ["unshare", "--pid", "--fork", "--", *shim.words("start")]
    started = shim.run(words, shim.bootstrap)
    assert started == Answer(0, _json(shim), b"")
    until(lambda: service.children() == [], "the child has refused")
    assert "pid namespace" in service.text()


def test_a_new_installation_is_served_by_a_new_service(host: Host) -> None:
    """install.sh puts new code beside the old, and `venv` leads to it then."""
    prefix = host.path / "prefix"
    service = WarmService(host.service, install(prefix))
    service.start()
    try:
        pid, shim, other = service.pid, host.shim(), host.shim("other")
        binary = str(prefix / "bin/containerd-shim-qemubox-v1")
        words = [binary, *shim.words("start")[4:]]
        assert shim.run(words, shim.bootstrap) == Answer(0, _json(shim), b"")
        assert _parent(shim.pid) == pid
        foreign = host.shim("foreign")  # the checkout's own code
        assert foreign.start() == Answer(0, _json(foreign), b"")
        assert _parent(foreign.pid) != pid
        assert "executing anew" not in service.text()  # which would not help
        install(prefix)
        again = host.shim("again")
        started = again.run([binary, *again.words("start")[4:]], again.bootstrap)
        assert started == Answer(0, _json(again), b"")
        assert _parent(again.pid) != pid
        until(lambda: service.text().count("msg=serving") == 2, "the service has executed itself anew")
        assert other.run([binary, *other.words("start")[4:]], other.bootstrap) == Answer(0, _json(other), b"")
        assert _parent(other.pid) == service.pid == pid
        assert shim.connect().shim_pid == shim.pid
        shim.shutdown()
        until(lambda: shim.pid not in service.children(), "the new service has reaped the old one's shim")
    finally:
        service.close()


def test_changed_files_are_noticed_on_reload(host: Host) -> None:
    prefix = host.path / "prefix"
    service = WarmService(host.service, install(prefix))
    service.start()
    try:
        os.kill(service.pid, signal.SIGHUP)
        os.kill(service.pid, signal.SIGHUP)
        (file,) = prefix.glob("lib/qemubox/venv/lib/*/site-packages/shim/version.py")
        file.write_text(file.read_text() + "\n")
        os.kill(service.pid, signal.SIGHUP)
        service.until_logged("shim/version.py has changed")
        until(lambda: service.text().count("msg=serving") == 2, "the service has executed itself anew")
        assert service.stop() == 0
        assert not host.service.exists()
    finally:
        service.close()


def test_messages_are_read_whole_or_not_at_all() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        message.send(ours, message.pack(b"a", b"", b"b" * 70000), time.monotonic() + 5)
        assert message.receive(theirs, time.monotonic() + 5) == [b"a", b"", b"b" * 70000]
        for data, words in (
            (b"\0\0\0\0", "an empty message"),
            (b"\x7f\0\0\0", "are allowed"),
            (b"\0\0\0\5\0\0\0\2x", "a string that ends"),
        ):
            ours.sendall(data)
            with pytest.raises(message.MessageError, match=words):
                message.receive(theirs, time.monotonic() + 5)
        with pytest.raises(message.MessageError, match="timed out"):
            message.receive(theirs, time.monotonic() + 0.01)
        ours.close()
        with pytest.raises(message.MessageError, match="hung up"):
            message.receive(theirs, time.monotonic() + 5)
