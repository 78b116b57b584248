"""OCI hooks run when and where the runtime specification says, and are told what it says; and the files they change."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.box import RUN_DEADLINE_S, RUNTIMES, Box
from harness.containerd import Result
from harness.deadline import eventually
from harness.images import BUSYBOX
from harness.messages import assert_one_clear_line


@pytest.fixture
def seen(box: Box) -> Iterator[Path]:
    """A directory in which hooks leave what they see."""
    directory = box.containerd.cell.directory / f"hooks-{box.new_id()}"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


class Hooked:
    """A container whose specification has hooks: shell scripts, by moment."""

    def __init__(self, box: Box, *command: str, options: tuple[str, ...] = (), **scripts: str) -> None:
        self.box = box
        self.id = box.new_id()
        runtime = RUNTIMES[box.runtime]
        box.containerd.ctr("containers", "create", *options, "--runtime", runtime, BUSYBOX, self.id, *command).checked()
        # Of an image's busybox the first word says which applet it is.
        hooks = {
            moment: [{**_hook(script), **({"args": ["sh", "-c", script]} if moment == "startContainer" else {})}]
            for moment, script in scripts.items()
        }
        box.containerd.change_spec(self.id, {"hooks": hooks})

    def start(self) -> Result:
        """Create and start its task."""
        return self.box.containerd.ctr("tasks", "start", "-d", "--null-io", self.id, deadline_s=RUN_DEADLINE_S)

    def run(self) -> Result:
        """Create and start its task in the foreground."""
        return self.box.containerd.ctr("tasks", "start", self.id, deadline_s=RUN_DEADLINE_S)

    def end(self) -> None:
        """Kill it and delete its task."""
        self.box.kill(self.id).checked()
        self.box.wait_stopped(self.id)
        self.box.delete_task(self.id)

    def remove(self) -> None:
        """Remove the container."""
        self.box.remove(self.id).checked()


def _hook(script: str, timeout_s: int = 0) -> dict[str, object]:
    hook: dict[str, object] = {
        "path": "/bin/sh",
        "args": ["argument-zero", "-c", script],
        "env": ["PATH=/usr/bin:/bin", "WORD=a b"],
    }
    return {**hook, "timeout": timeout_s} if timeout_s else hook


def _state(seen: Path, moment: str) -> dict[str, object]:
    state: dict[str, object] = json.loads((seen / moment).read_text())
    return state


def test_hooks_run_in_their_moments_with_the_whole_state(box: Box, seen: Path) -> None:
    hooked = Hooked(
        box,
        *("sleep", "1000"),
        options=("--annotation", "some/thing=here"),
        createRuntime=f"cd {seen}; cat >creating; echo createRuntime $0 $WORD $(pwd) >>order;"
        " readlink /proc/self/ns/net >own; pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/' creating);"
        " readlink /proc/$pid/ns/net >theirs",
        poststop=f"cd {seen}; cat >stopped; echo poststop >>order",
    )
    hooked.start().checked()
    pid = box.task_pid(hooked.id)
    assert (seen / "order").read_text() == f"createRuntime argument-zero a b {seen}\n"
    hooked.end()
    eventually((seen / "stopped").exists, "the poststop hook has run", 20)
    hooked.remove()
    creating, stopped = _state(seen, "creating"), _state(seen, "stopped")
    bundle = f"/run/containerd/io.containerd.runtime.v2.task/default/{hooked.id}"
    for state, status in ((creating, "creating"), (stopped, "stopped")):
        assert (state["id"], state["status"]) == (hooked.id, status)
        assert os.path.realpath(str(state["bundle"])) == bundle
        annotations = state["annotations"]
        assert isinstance(annotations, dict)
        assert annotations["some/thing"] == "here"
        assert state["ociVersion"]
    assert creating["pid"] == pid
    assert "pid" not in stopped
    own, theirs = (seen / "own").read_text(), (seen / "theirs").read_text()
    assert own.startswith("net:[")
    assert theirs.startswith("net:[")
    assert own != theirs
    assert (seen / "order").read_text().splitlines()[1:] == ["poststop"]


def test_a_hook_that_fails_fails_create_with_its_words(box: Box, seen: Path) -> None:
    hooked = Hooked(
        box,
        "true",
        createRuntime="echo there is no network today >&2; exit 7",
        poststop=f"echo poststop >>{seen}/order",
    )
    with box.events() as events:
        result = hooked.start()
        assert result.code != 0
        assert "there is no network today" in result.error
        assert "exit status 7" in result.error
        assert "/tasks/start" not in events.topics(hooked.id)
        assert "/tasks/exit" not in events.topics(hooked.id)
    assert (seen / "order").read_text() == "poststop\n"
    hooked.remove()


def test_a_hook_past_its_timeout_is_killed_and_fails_create(box: Box) -> None:
    hooked = Hooked(box, "true")
    box.containerd.change_spec(hooked.id, {"hooks": {"createRuntime": [_hook("exec sleep 1000", 1)]}})
    result = hooked.start()
    assert result.code != 0
    assert "timeout of 1" in result.error
    hooked.remove()


def test_a_hook_that_is_not_there_is_named(vm: Box) -> None:
    hooked = Hooked(vm, "true")
    vm.containerd.change_spec(hooked.id, {"hooks": {"prestart": [{"path": "/nonexistent/hook"}]}})
    assert_one_clear_line(hooked.start(), "prestart hook: /nonexistent/hook cannot be run: No such file")
    hooked.remove()


def test_create_container_hooks_are_refused_by_name(vm: Box) -> None:
    hooked = Hooked(vm, "true", createContainer="true")
    assert_one_clear_line(hooked.start(), r"hooks\.createContainer")
    hooked.remove()


def test_after_start_its_hooks_have_run_and_only_warn(vm: Box, seen: Path) -> None:
    hooked = Hooked(vm, "sleep", "1000", poststart=f"cat >{seen}/running; exit 1")
    hooked.start().checked()
    state = _state(seen, "running")
    assert (state["status"], state["pid"]) == ("running", vm.task_pid(hooked.id))
    assert vm.status(hooked.id) == "RUNNING"
    hooked.end()
    hooked.remove()


def test_start_container_hooks_run_in_the_container(box: Box) -> None:
    hooked = Hooked(box, "cat", "/tmp/hooked", startContainer="mkdir -p /tmp; echo from the hook >/tmp/hooked")
    result = hooked.run().checked()
    assert result.text == "from the hook"
    box.delete_task(hooked.id)
    hooked.remove()


@pytest.mark.keeps_image
def test_after_a_kill_of_the_shim_poststop_hooks_run_once(box: Box, seen: Path) -> None:
    hooked = Hooked(box, "sleep", "1000", poststop=f"cat >{seen}/stopped; echo poststop >>{seen}/order")
    hooked.start().checked()
    with box.events() as events:
        os.kill(box.shim(hooked.id).pid, signal.SIGKILL)
        events.wait("/tasks/exit", hooked.id)
    eventually((seen / "order").exists, "the poststop hook has run", 20)
    box.delete_task(hooked.id)
    hooked.remove()
    assert (seen / "order").read_text() == "poststop\n"
    assert _state(seen, "stopped")["status"] == "stopped"


@pytest.mark.release
def test_a_kill_of_the_shim_during_a_hook_ends_it_and_poststop_hooks_run(vm: Box, seen: Path) -> None:
    hooked = Hooked(
        vm,
        "true",
        createRuntime=f"echo $$ >{seen}/begun; exec sleep 1000",
        poststop=f"kill -0 $(cat {seen}/begun) || echo gone >>{seen}/order",
    )
    with vm.containerd.running(("tasks", "start", "-d", "--null-io", hooked.id)) as ctr:
        eventually(lambda: (seen / "begun").exists() and bool((seen / "begun").read_text()), "the hook runs", 20)
        os.kill(vm.shim(hooked.id).pid, signal.SIGKILL)
        assert ctr.wait(RUN_DEADLINE_S) != 0
    eventually((seen / "order").exists, "the poststop hook has run", 20)
    assert (seen / "order").read_text() == "gone\n"
    hooked.remove()


def test_files_that_a_hook_changes_are_in_the_container(box: Box, seen: Path) -> None:
    """As nerdctl's hook writes the hosts file."""
    hosts = seen / "hosts"
    hosts.write_text("before\n")
    mount = f"type=bind,src={hosts},dst=/etc/hosts,options=rbind:rw"
    hooked = Hooked(box, "cat", "/etc/hosts", options=("--mount", mount), createRuntime=f"echo after >{hosts}")
    assert hooked.run().checked().text == "after"
    box.delete_task(hooked.id)
    hooked.remove()


@pytest.mark.release
def test_what_is_written_to_such_a_file_stays_in_the_machine(vm: Box, seen: Path) -> None:
    hosts = seen / "hosts"
    hosts.write_text("before\n")
    mount = f"type=bind,src={hosts},dst=/etc/hosts,options=rbind:rw"
    result = vm.run("sh", "-c", "echo more >>/etc/hosts; cat /etc/hosts", options=("--mount", mount))
    assert result.checked().text == "before\nmore"
    assert hosts.read_text() == "before\n"


def test_a_setting_of_the_network_holds(box: Box) -> None:
    hooked = Hooked(box, "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start")
    box.containerd.change_spec(hooked.id, {"linux": {"sysctl": {"net.ipv4.ip_unprivileged_port_start": "7"}}})
    assert hooked.run().checked().text == "7"
    box.delete_task(hooked.id)
    hooked.remove()
