"""Annotations io.qemubox.*: what a container may ask for itself, and what it may not."""

import json
from collections.abc import Iterator

import pytest

from harness.box import Box
from harness.messages import assert_one_clear_line
from shim.config import ANNOTATIONS


def _options(**asked: str) -> tuple[str, ...]:
    return tuple(
        word
        for name, value in asked.items()
        for word in ("--annotation", f"io.qemubox.{name.replace('__', '.')}={value}")
    )


@pytest.fixture
def allowing(vm: Box) -> Iterator[Box]:
    """All are allowed."""
    with vm.qemubox.changed({"annotations": {"allow": [*ANNOTATIONS]}}):
        yield vm


def test_none_is_allowed_at_first(vm: Box) -> None:
    assert_one_clear_line(
        vm.run("true", options=_options(vm__cpus="2")), r"io\.qemubox\.vm\.cpus", "'2'", r"annotations\.allow"
    )


def test_more_than_the_owner_gives_is_refused(allowing: Box) -> None:
    with allowing.qemubox.changed({"annotations": {"allow": [*ANNOTATIONS]}, "vm": {"max_memory_mib": 256}}):
        result = allowing.run("true", options=_options(vm__memory_mib="257"))
        assert_one_clear_line(result, r"io\.qemubox\.vm\.memory_mib", "'257'", "256", r"vm\.max_memory_mib")


def test_one_that_there_is_not_is_refused(allowing: Box) -> None:
    result = allowing.run("true", options=_options(vm__image="/etc/shadow"))
    assert_one_clear_line(result, r"io\.qemubox\.vm\.image", "/etc/shadow", r"io\.qemubox\.vm\.cpus")


@pytest.mark.release
def test_vcpus_and_memory_without_a_limit(allowing: Box) -> None:
    said = allowing.run(
        *("sh", "-c", "nproc; grep MemTotal /proc/meminfo"), options=_options(vm__cpus="2", vm__memory_mib="1024")
    ).checked()
    cpus, memory = said.text.splitlines()
    assert cpus == "2"
    assert int(memory.split()[1]) > 1000 << 10


def test_a_limit_comes_first(allowing: Box) -> None:
    said = allowing.run("nproc", options=(*_options(vm__cpus="2"), "--cpus", "1")).checked()
    assert said.text == "1"


def test_a_smaller_writable_layer(allowing: Box) -> None:
    said = allowing.run("df", "-m", "/", options=_options(rootfs__writable_mib="64")).checked()
    assert int(said.text.splitlines()[1].split()[1]) <= 64


def test_without_a_template_it_boots(allowing: Box) -> None:
    offset = allowing.containerd.log_size()
    assert allowing.run("echo", "hello", options=_options(template__mode="off")).checked().text == "hello"
    log = allowing.containerd.log_tail(offset, limit=1 << 20)
    assert "how=boot" in log
    assert "how=clone" not in log


@pytest.mark.release
def test_the_accelerator_and_less_of_the_console(allowing: Box) -> None:
    options = ("--null-io", *_options(vm__accel="tcg", vm__console_kib="16"))
    container = allowing.start("sleep", "100", options=options)
    directory = allowing.containerd.cell.path("/run/qemubox/vm")
    (machine,) = [path.parent for path in directory.glob("*/machine.json")]
    assert json.loads((machine / "machine.json").read_text())["accelerator"] == "tcg"
    assert (machine / "console").stat().st_size <= 16 << 10
    allowing.kill(container)
    allowing.wait_stopped(container)
    allowing.delete_task(container).checked()
    allowing.remove(container).checked()
