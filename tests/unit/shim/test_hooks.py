"""Hooks: what the specification may say of them, what one is given, how it may end, and what is left for `delete`."""

import json
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from shim.errors import QemuboxError, SpecError, UnsupportedError
from shim.hooks import poststop
from shim.hooks.document import read, state
from shim.hooks.hook import Hook, HookError, run
from shim.journal import Journal
from shim.reclaim import reclaim
from shim.spec import Json
from tests.unit.shim.observe import same_fds, until


def _hook(script: str, *, timeout_s: int = 0, env: list[str] | None = None) -> Hook:
    return Hook("/bin/sh", ["sh", "-c", script], ["PATH=/usr/bin:/bin"] if env is None else env, timeout_s)


def test_hooks_are_read_in_their_order_and_words() -> None:
    document: Json = {
        "hooks": {
            "createRuntime": [
                {"path": "/a", "args": ["zero", "1"], "env": ["A=b", "C="], "timeout": 3},
                {"path": "/b"},
            ],
            "startContainer": [{"path": "/c"}],
        }
    }
    found = read(document)
    assert [hook.facts() for hook in found["createRuntime"]] == [
        {"path": "/a", "args": ["zero", "1"], "env": ["A=b", "C="], "timeout_s": 3},
        {"path": "/b", "args": ["/b"], "env": [], "timeout_s": 0},
    ]
    assert [found[moment] for moment in ("prestart", "poststart", "poststop")] == [[], [], []]


@pytest.mark.parametrize("document", [{}, {"hooks": None}, {"hooks": {}}, {"hooks": {"createContainer": []}}])
def test_no_hooks(document: Json) -> None:
    assert set(map(len, read(document).values())) == {0}


@pytest.mark.parametrize(
    ("moment", "hook", "error", "words"),
    [
        ("createContainer", {"path": "/x"}, UnsupportedError, r"has hooks\.createContainer"),
        ("prestart", {"path": "x"}, SpecError, "prestart hook has the path 'x': it must be absolute"),
        ("poststop", {}, SpecError, "has the path None"),
        ("poststop", {"path": "/x\0"}, SpecError, "must be absolute"),
        ("startContainer", {"path": "x"}, SpecError, "startContainer hook has the path"),
        ("poststart", {"path": "/x", "timeout": 0}, SpecError, "the timeout 0: it must be a whole number"),
        ("poststart", {"path": "/x", "timeout": True}, SpecError, "the timeout True"),
        ("poststart", {"path": "/x", "timeout": "5"}, SpecError, "the timeout '5'"),
        ("createRuntime", {"path": "/x", "args": "a"}, SpecError, "has 'a' as args: it must be a list of texts"),
        ("createRuntime", {"path": "/x", "args": ["a", 1]}, SpecError, "as args"),
        ("createRuntime", {"path": "/x", "env": ["A\0=b"]}, SpecError, "as env"),
        ("createRuntime", {"path": "/x", "env": ["A"]}, SpecError, "'A' in its environment: it must be NAME=VALUE"),
    ],
)
def test_what_is_no_hook_is_refused_by_name(moment: str, hook: Json, error: type[QemuboxError], words: str) -> None:
    with pytest.raises(error, match=words):
        read({"hooks": {moment: [hook]}})


def test_the_state_is_the_runtime_specification_s() -> None:
    document: Json = {"ociVersion": "1.1.0", "annotations": {"a/b": "c"}}
    assert json.loads(state(document, container_id="c", bundle="/b", status="creating", pid=7)) == {
        "ociVersion": "1.1.0",
        "id": "c",
        "status": "creating",
        "pid": 7,
        "bundle": "/b",
        "annotations": {"a/b": "c"},
    }
    assert json.loads(state({}, container_id="c", bundle="/b", status="stopped")) == {
        "ociVersion": "",
        "id": "c",
        "status": "stopped",
        "bundle": "/b",
    }


def test_a_hook_gets_its_words_its_environment_the_state_and_nothing_else(tmp_path: Path) -> None:
    text = (
        "import json, os, sys; fds = sorted(os.listdir('/proc/self/fd'));"
        "json.dump([sys.orig_argv[0], sys.argv[1:], dict(os.environ), os.getcwd(), sys.stdin.read(), fds, os.getsid(0)"
        " == os.getpid()], open('seen', 'w'))"
    )
    hook = Hook(sys.executable, ["argument zero", "-IS", "-c", text, "x y"], ["A=1", "A=2"], 0)
    told = json.dumps({"annotations": {"k": "v" * 200_000}}).encode()
    started: list[int] = []
    with same_fds():
        run(hook, told, directory=str(tmp_path), limit_s=20, on_start=started.append)
    zero, words, environment, directory, stdin, fds, leads = json.loads((tmp_path / "seen").read_text())
    assert (zero, words, directory, stdin, leads) == ("argument zero", ["x y"], str(tmp_path), told.decode(), True)
    environment.pop("LC_CTYPE", None)  # Python sets it in itself
    assert environment == {"A": "2"}
    assert fds == ["0", "1", "2", "3"]  # the last is that of the listing
    assert len(started) == 1


def test_the_state_is_told_only_after_the_hook_is_known(tmp_path: Path) -> None:
    seen: list[bool] = []

    def on_start(pid: int) -> None:
        time.sleep(0.2)
        seen.append((tmp_path / "read").exists())

    run(_hook("cat >/dev/null; echo >read"), b"{}", directory=str(tmp_path), limit_s=20, on_start=on_start)
    assert seen == [False]
    assert (tmp_path / "read").exists()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo out; echo err >&2; exit 3", r"/bin/sh ended with exit status 3: out \| err"),
        ("kill -9 $$", "/bin/sh was killed by signal 9$"),
        ("exit 1", "/bin/sh ended with exit status 1$"),
    ],
)
def test_a_hook_that_fails_is_quoted(tmp_path: Path, script: str, words: str) -> None:
    with same_fds(), pytest.raises(HookError, match=words):
        run(_hook(script), b"x" * 1_000_000, directory=str(tmp_path), limit_s=20)


@pytest.mark.parametrize("path", ["/nonexistent/hook", "/etc/passwd"])
def test_a_hook_that_cannot_be_run_is_named(tmp_path: Path, path: str) -> None:
    with same_fds(), pytest.raises(HookError, match=f"{path} cannot be run: "):
        run(Hook(path, [path], [], 0), b"", directory=str(tmp_path), limit_s=20)


def test_what_it_says_is_bounded(tmp_path: Path) -> None:
    with pytest.raises(HookError) as caught:
        run(_hook("head -c 1000000 /dev/zero | tr '\\0' x; exit 1"), b"", directory=str(tmp_path), limit_s=20)
    assert len(str(caught.value)) < 5000


@pytest.mark.parametrize(("timeout_s", "limit_s"), [(1, 100.0), (0, 1.0)])
def test_a_hook_that_takes_too_long_is_killed_with_all_it_started(
    tmp_path: Path, timeout_s: int, limit_s: float
) -> None:
    hook = _hook("sleep 1000 & echo $! >pid; wait", timeout_s=timeout_s)
    with same_fds(), pytest.raises(HookError, match="ran past its timeout of 1 s"):
        run(hook, b"{}", directory=str(tmp_path), limit_s=limit_s)
    pid = int((tmp_path / "pid").read_text())

    def is_gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
        except OSError:
            return True

    until(is_gone, f"{pid}, which it started, has ended")


def test_a_hook_that_nobody_waits_for_any_more_is_killed(tmp_path: Path) -> None:
    cancel = os.eventfd(0)
    threading.Timer(0.2, os.eventfd_write, (cancel, 1)).start()
    with same_fds(), pytest.raises(HookError, match="was cancelled"):
        run(_hook("sleep 1000"), b"{}", directory=str(tmp_path), limit_s=20, cancelled=cancel)
    os.close(cancel)


def test_what_a_hook_leaves_running_is_not_waited_for(tmp_path: Path) -> None:
    begun = time.monotonic()
    run(_hook("setsid sleep 20 & echo $! >pid"), b"{}", directory=str(tmp_path), limit_s=15)
    assert time.monotonic() - begun < 10
    os.kill(int((tmp_path / "pid").read_text()), 9)


def _left(directory: Path, *scripts: str) -> Journal:
    journal = Journal(directory)
    hooks = [_hook(script) for script in scripts]
    poststop.leave(directory, journal, hooks, b'{"status":"stopped"}', str(directory.parent))
    return journal


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "vm"
    path.mkdir()
    return path


def test_after_a_crash_each_hook_runs_once_in_order_whatever_the_others_do(directory: Path, tmp_path: Path) -> None:
    _left(directory, "cat >>ran; echo 1 >>ran", "echo 2 >>ran; echo no >&2; exit 5", "echo 3 >>ran")
    warnings: list[str] = []
    assert reclaim(directory, warn=warnings.append) == []
    assert (tmp_path / "ran").read_text() == '{"status":"stopped"}1\n2\n3\n'
    assert warnings == ["poststop hook: /bin/sh ended with exit status 5: no"]
    assert not directory.exists()


def test_they_run_when_all_else_is_gone(directory: Path, tmp_path: Path) -> None:
    journal = _left(directory, "ls gone 2>&1 >/dev/null || echo gone >ran")
    (tmp_path / "gone").touch()
    journal.record("path", path=str(tmp_path / "gone"))
    assert reclaim(directory) == []
    assert (tmp_path / "ran").read_text() == "gone\n"


def test_those_that_have_run_do_not_run_again(directory: Path, tmp_path: Path) -> None:
    _left(directory, "echo 1 >>ran", "echo 2 >>ran")
    first = poststop.take(str(directory / "poststop.0"))
    assert first is not None
    assert first.run(20) == ""
    assert reclaim(directory) == []
    assert (tmp_path / "ran").read_text() == "1\n2\n"


def test_one_that_was_never_written_down_whole_is_passed_over(directory: Path, tmp_path: Path) -> None:
    _left(directory, "echo 1 >>ran")
    (directory / "poststop.0").write_text('{"hook": {"pa')
    assert reclaim(directory) == []
    assert not (tmp_path / "ran").exists()


def test_in_a_bundle_that_is_gone_a_hook_runs_all_the_same(directory: Path, tmp_path: Path) -> None:
    poststop.leave(directory, Journal(directory), [_hook(f"pwd >{tmp_path}/ran")], b"{}", "/nonexistent")
    assert reclaim(directory) == []
    assert (tmp_path / "ran").read_text() == "/\n"
