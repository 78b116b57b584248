"""`start` as containerd runs it: exact answers, a daemon that lives on, and nothing left where it fails."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from api import bootstrap_pb2
from shim.claim import LOCK_NAME
from shim.identity import DEFAULT_SOCKET_DIR
from shim.journal import Journal
from shim.launch import answer
from tests.unit.shim.observe import until
from tests.unit.shim.program import Answer, Host, Shim


def _json(shim: Shim) -> bytes:
    return json.dumps(
        {"version": 3, "address": f"unix://{shim.socket}", "protocol": "ttrpc"}, separators=(",", ":")
    ).encode()


def test_the_answers_form_depends_on_containerds_age() -> None:
    assert answer("/s/x", newest=False) == "unix:///s/x"
    assert answer("/s/x", newest=True) == '{"version":3,"address":"unix:///s/x","protocol":"ttrpc"}'


def test_a_start_and_its_end(host: Host) -> None:
    shim = host.shim()
    assert shim.start() == Answer(0, _json(shim), b"")
    assert stat.S_IMODE(shim.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(host.sockets.stat().st_mode) == 0o700
    assert (shim.bundle / "address").read_text() == f"unix://{shim.socket}"
    assert shim.daemons() == [shim.pid]
    assert (shim.directory / LOCK_NAME).read_text() == str(shim.pid)
    reply = shim.connect()
    assert (reply.shim_pid, reply.task_pid) == (shim.pid, 0)
    _is_on_its_own(shim.pid)
    shim.shutdown()
    until(lambda: not shim.daemons(), "the daemon has ended")
    assert shim.left() == []


def _is_on_its_own(pid: int) -> None:
    assert os.getsid(pid) == pid
    for fd in ("0", "1", "2"):
        assert os.readlink(f"/proc/{pid}/fd/{fd}") == "/dev/null"
    # containerd removes the bundle under a living shim.
    until(lambda: os.readlink(f"/proc/{pid}/cwd") == "/", "the daemon has left the bundle")


def test_an_old_containerd_gets_a_plain_address(host: Host) -> None:
    """Before 2.3: no bootstrap parameters, so the default directory; Debian's 1.7 sets MAX_SHIM_VERSION, too."""
    shim = host.shim(host.unique)
    path = shim.identity.socket_path()
    assert shim.environment["MAX_SHIM_VERSION"] == "2"
    assert shim.start(stdin=b"") == Answer(0, f"unix://{path}".encode(), b"")
    assert os.path.dirname(path) == DEFAULT_SOCKET_DIR
    shim.kill()
    assert shim.delete().status == 0
    assert not os.path.lexists(path)


def test_options_of_an_older_containerd_are_no_bootstrap(host: Host) -> None:
    shim = host.shim(host.unique)
    options = bootstrap_pb2.BootstrapParams(instance_id="another", namespace="ns", socket_dir="/nonexistent")
    started = shim.start(stdin=options.SerializeToString())
    assert started.stdout.decode() == f"unix://{shim.identity.socket_path()}"
    shim.kill()
    shim.delete()


@pytest.mark.parametrize(
    ("container_id", "namespace"),
    [
        ("i" * 64, "n" * 76),
        ("a.b-c_d", "moby"),
        ("-debug", "ns"),
        ("with blank\nand newline", "n\N{LATIN SMALL LETTER A WITH DIAERESIS}"),
        ("../../escape", "/"),
    ],
)
def test_odd_and_long_names(host: Host, container_id: str, namespace: str) -> None:
    shim = host.shim(container_id, namespace)
    assert shim.start() == Answer(0, _json(shim), b"")
    assert shim.connect().shim_pid == shim.pid
    assert os.listdir(host.state / "vm") == [shim.identity.key]
    shim.kill()
    assert shim.delete().status == 0
    assert shim.left() == []


def test_a_name_that_is_no_text(host: Host) -> None:
    """Nor one for protobuf, so there are no bootstrap parameters."""
    shim = host.shim(f"{host.unique}\udcff")
    started = shim.start(stdin=b"")
    assert (started.status, started.stderr) == (0, b"")
    assert os.fsdecode(started.stdout) == f"unix://{shim.identity.socket_path()}"
    shim.kill()
    assert shim.delete().status == 0
    assert shim.left() == []


def test_one_id_in_two_namespaces_is_two_shims(host: Host) -> None:
    one, other = host.shim("c1", "blue"), host.shim("c1", "green")
    assert one.start().stdout == _json(one)
    assert other.start().stdout == _json(other)
    assert one.connect().shim_pid != other.connect().shim_pid
    one.kill(signal.SIGTERM)


def test_a_second_start_of_one_id_is_refused_in_time(host: Host) -> None:
    shim, again = host.shim(), host.shim()
    shim.start()
    began = time.monotonic()
    refused = again.start()
    assert time.monotonic() - began < 10
    reason = f"a shim for ns/c1 is still running (pid {shim.pid}): delete its task first"
    assert refused == Answer(1, b"", f"containerd-shim-qemubox-v1: {reason}".encode())
    assert shim.connect().shim_pid == shim.pid  # unharmed


def test_a_start_waits_for_the_shim_before_it(host: Host) -> None:
    """The old one goes while the new one waits for its lock."""
    shim, again = host.shim(), host.shim()
    shim.start()
    old = shim.connect().shim_pid  # and it is up: it will clean up after itself, its directory too
    starting = subprocess.Popen(
        again.words("start"),
        cwd=again.bundle,
        env=again.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert starting.stdin is not None
        starting.stdin.write(again.bootstrap)
        starting.stdin.close()
        starting.stdin = None
        lock = shim.directory / LOCK_NAME
        until(lambda: _has_open(starting.pid, lock), "the second start waits for the lock")
        os.kill(old, signal.SIGTERM)
        assert starting.communicate(timeout=30) == (_json(again), b"")
    finally:
        starting.kill()
        starting.wait()
    assert again.pid != old
    assert again.connect().shim_pid == again.pid


def _has_open(pid: int, path: Path) -> bool:
    return any(os.path.realpath(f"/proc/{pid}/fd/{fd}") == str(path) for fd in os.listdir(f"/proc/{pid}/fd"))


def test_what_a_killed_shim_left_is_removed_first(host: Host) -> None:
    shim, again = host.shim(), host.shim()
    shim.start()
    leftover = host.path / "leftover"
    leftover.touch()
    Journal(shim.directory).record("path", path=str(leftover))
    shim.kill()
    assert shim.socket.exists()
    assert again.start() == Answer(0, _json(again), b"")
    assert not leftover.exists()
    assert again.connect().shim_pid == again.pid
    assert [entry["kind"] for entry in Journal(again.directory).entries()] == ["path", "process"]


def test_what_cannot_be_removed_is_named(host: Host) -> None:
    shim = host.shim()
    shim.directory.mkdir(parents=True)
    (shim.directory / "journal").write_text('{"kind": "moon", "path": "/x"}\n')
    refused = shim.start()
    assert (refused.status, refused.stdout) == (1, b"")
    assert b"an earlier run of c1 left what cannot be removed: " in refused.stderr
    assert b"\n" not in refused.stderr
    assert not shim.daemons()


def test_a_socket_path_that_is_too_long_is_named_and_leaves_nothing(host: Host) -> None:
    shim = host.shim()
    long = str(host.path / ("x" * 60))
    params = bootstrap_pb2.BootstrapParams(instance_id="c1", namespace="ns", socket_dir=long)
    refused = shim.start(stdin=params.SerializeToString())
    assert (refused.status, refused.stdout) == (1, b"")
    assert f"{long}/{shim.identity.digest}: longer than a socket's name may be, 107 bytes".encode() in refused.stderr
    assert shim.left() == []
    assert not os.path.lexists(long)


def test_a_socket_directory_that_cannot_be_made_leaves_nothing(host: Host) -> None:
    shim = host.shim()
    host.sockets.write_text("a file")
    refused = shim.start()
    assert (refused.status, refused.stdout, refused.stderr.count(b"\n")) == (1, b"", 0)
    assert str(host.sockets).encode() in refused.stderr
    assert [path for path in shim.left() if path != str(shim.socket)] == []


def test_a_bundle_that_cannot_be_written_leaves_nothing(host: Host) -> None:
    """The daemon is forked by then; nobody would ever come for it."""
    shim = host.shim()
    (shim.bundle / "shim.pid").mkdir()
    refused = shim.start()
    assert (refused.status, refused.stdout, refused.stderr.count(b"\n")) == (1, b"", 0)
    assert b"shim.pid" in refused.stderr
    # The daemon has been waited for; the source of its anchors, which the kernel kills with it, has not.
    until(lambda: shim.left() == [], "nothing is left")


def test_an_answer_that_nobody_takes_leaves_nothing(host: Host) -> None:
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
    until(lambda: shim.left() == [], "nothing is left")  # as above


def test_closed_streams_are_no_hindrance(host: Host) -> None:
    shim = host.shim(host.unique)
    program = "import os, sys; os.close(0); os.execv(sys.argv[1], sys.argv[1:])"
    started = shim.run([sys.executable, "-c", program, *shim.words("start")], b"")
    assert (started.status, started.stderr) == (0, b"")
    assert os.fsdecode(started.stdout) == f"unix://{shim.identity.socket_path()}"
    shim.kill()
    shim.delete()


_BROKEN_DAEMON = """
import sys, types
module = types.ModuleType("shim.daemon")
def run(*_arguments, **_named):
    raise RuntimeError("no daemon today")
module.run = run
sys.modules["shim.daemon"] = module
from shim.entry import main
sys.exit(main(sys.argv[sys.argv.index("--") + 1:]))
"""


def test_a_daemon_that_cannot_run_says_why_in_containerds_log(host: Host) -> None:
    shim = host.shim()
    words = shim.words("start")[4:]
    started = shim.run([sys.executable, "-I", "-c", _BROKEN_DAEMON, "--", *words], shim.bootstrap)
    assert started == Answer(0, _json(shim), b"")
    text = ""

    def complete() -> bool:
        nonlocal text
        text += shim.log_text()
        return "RuntimeError: no daemon today" in text

    until(complete, "the log has the reason")
    assert text.startswith("the shim cannot run: Traceback")
    assert shim.delete().status == 0
    assert shim.left() == []


def test_the_lock_outlives_start_and_is_the_daemons(host: Host) -> None:
    shim = host.shim()
    shim.start()
    program = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    done = subprocess.run([sys.executable, "-c", program, shim.directory / LOCK_NAME], capture_output=True, check=False)
    assert b"BlockingIOError" in done.stderr
    shim.kill()
    # Its source of anchors, if only just forked, has it for a moment longer, and ends with it.
    program = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX)"
    subprocess.run([sys.executable, "-c", program, shim.directory / LOCK_NAME], check=True, timeout=30)
