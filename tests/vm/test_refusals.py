"""What cannot be run is refused at once, in one clear line, and leaves nothing behind."""

import re
import shutil
from pathlib import Path

import pytest

from harness.box import Box
from harness.messages import assert_one_clear_line
from harness.qemubox import Sections

NOWHERE = "/nowhere/at-all"


@pytest.mark.parametrize("program", ["no-such-program", "/no/such/program", "/etc/passwd", "/etc"])
def test_a_binary_that_cannot_be_executed_fails_at_create(box: Box, program: str) -> None:
    """As runc does: no task has been created or started, so nobody waits for one."""
    container = box.new_id()
    with box.events() as events:
        result = box.run(program, container=container)
        assert result.code not in (0, 127)
        assert program in result.error
        assert "/tasks/start" not in events.topics(container)
        assert "/tasks/exit" not in events.topics(container)


@pytest.mark.every_containerd
def test_a_missing_binary_s_line_is_clear(vm: Box) -> None:
    assert_one_clear_line(vm.run("no-such-program"), "no-such-program", "not found|no such file")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--net-host",), ("network",)),
        (("--with-ns", "pid:/proc/1/ns/pid"), ("[Pp][Ii][Dd]",)),
    ],
)
def test_the_host_s_namespaces_are_refused(vm: Box, options: tuple[str, ...], words: tuple[str, ...]) -> None:
    container = vm.new_id()
    with vm.events() as events:
        assert_one_clear_line(vm.run("true", options=options, container=container), "host", *words)
        assert "/tasks/start" not in events.topics(container)


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("vm", "qemu"),
        ("vm", "kernel"),
        ("vm", "image"),
        ("rootfs", "mkfs_erofs"),
        ("rootfs", "mkfs_ext4"),
    ],
)
def test_a_missing_part_is_named(vm: Box, section: str, key: str) -> None:
    """The layer cache is empty, so that a layer must be converted."""
    cache = vm.containerd.cell.directory / "fresh-cache"
    changes: Sections = {"runtime": {"cache_dir": str(cache)}}
    changes.setdefault(section, {})[key] = NOWHERE
    with vm.qemubox.changed(changes):
        assert_one_clear_line(vm.run("true"), NOWHERE)
    assert list(cache.glob("layers/making/*")) == []
    shutil.rmtree(cache, ignore_errors=True)


@pytest.mark.on("2")
@pytest.mark.parametrize(
    ("mount", "words"),
    [
        ("type=bind,src=/run/containerd/containerd.sock,dst=/run/docker.sock,options=rbind:rw", ("is a socket", "TCP")),
        ("type=bind,src=/nowhere/at-all,dst=/data,options=rbind:ro", ("No such file", "on the host")),
        ("type=bind,src=/sys/fs/cgroup,dst=/sys/fs/cgroup,options=rbind:ro", ("the host's kernel",)),
        ("type=bind,src=/var/tmp,dst=/data,options=rbind:rshared", ("rshared", "rprivate")),
        ("type=bind,src=/var/tmp,dst=/data,options=rbind:size=5m", ("size=5m",)),
        ("type=nfs,src=server:/export,dst=/data", ("of the type nfs", "bind a directory")),
        ("type=ext4,src=/var/tmp,dst=/data", ("a block device or a file",)),
    ],
)
def test_a_mount_that_cannot_be_given_is_named(vm: Box, mount: str, words: tuple[str, ...]) -> None:
    """By its source and its place, with what to do."""
    source, place = (re.escape(word.partition("=")[2]) for word in mount.split(",")[1:3])
    assert_one_clear_line(vm.run("true", options=("--mount", mount)), f"cannot mount {source} at {place}: ", *words)


@pytest.mark.release
def test_a_missing_vsock_daemon_is_named(vm: Box) -> None:
    with vm.qemubox.changed({"vsock": {"mode": "user", "daemon": NOWHERE}}):
        assert_one_clear_line(vm.run("true"), NOWHERE)


def test_a_user_that_is_not_there_is_named(vm: Box) -> None:
    with vm.qemubox.changed({"runtime": {"user": "no-such-user"}}):
        assert_one_clear_line(vm.run("true"), "no-such-user")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vm": {"colour": "red"}}, (r"vm\.colour", "red", "accel")),
        ({"vm": {"default_cpus": 0}}, (r"vm\.default_cpus", "0", "64")),
        ({"vm": {"accel": "hvf"}}, (r"vm\.accel", "hvf", "tcg")),
        ({"extra": {"key": "value"}}, (r"\[extra\]",)),
    ],
)
def test_a_bad_configuration_is_named(vm: Box, changes: Sections, words: tuple[str, ...]) -> None:
    with vm.qemubox.changed(changes):
        assert_one_clear_line(vm.run("true"), str(vm.qemubox.config), *words)


def test_forbidden_tcg_is_refused(vm: Box) -> None:
    with vm.qemubox.changed({"vm": {"accel": "tcg", "allow_tcg": False}}):
        assert_one_clear_line(vm.run("true"), "allow_tcg")


def _script(vm: Box, name: str, text: str) -> Path:
    """A program for the test, readable for the user that QEMU runs as."""
    path = vm.containerd.cell.directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_qemu_that_exits_at_once_is_quoted(vm: Box) -> None:
    qemu = _script(vm, "qemu-that-exits", 'echo "boom: this is no QEMU" >&2; exit 1')
    with vm.qemubox.changed({"vm": {"qemu": str(qemu)}}):
        assert_one_clear_line(vm.run("true"), "boom: this is no QEMU", str(qemu))


@pytest.mark.release
def test_a_vsock_daemon_that_exits_at_once_is_quoted(vm: Box) -> None:
    daemon = _script(vm, "daemon-that-exits", 'echo "bang: this is no daemon" >&2; exit 1')
    with vm.qemubox.changed({"vsock": {"mode": "user", "daemon": str(daemon)}}):
        assert_one_clear_line(vm.run("true"), "bang: this is no daemon")
