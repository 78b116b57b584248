"""What cannot be run is refused at once, in one clear line, and leaves nothing behind."""

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


def test_a_vsock_daemon_that_exits_at_once_is_quoted(vm: Box) -> None:
    daemon = _script(vm, "daemon-that-exits", 'echo "bang: this is no daemon" >&2; exit 1')
    with vm.qemubox.changed({"vsock": {"mode": "user", "daemon": str(daemon)}}):
        assert_one_clear_line(vm.run("true"), "bang: this is no daemon")
