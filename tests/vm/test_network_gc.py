"""`qemubox gc`: what is left of a container whose shim can do nothing any more, beside one that runs on."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psutil
import pytest

from harness import cni
from harness.box import Box
from harness.deadline import eventually
from harness.inside import Inside, inside

_DEADLINE_S: Final = 20.0


def _gc(vm: Box, *words: str) -> set[tuple[str, str]]:
    """What it has found, and what became of it."""
    done = vm.qemubox.command("gc", "--json", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return {(finding["what"], finding["outcome"]) for finding in json.loads(done.stdout)}


@contextmanager
def _without_containerd(vm: Box) -> Iterator[None]:
    """Nobody runs `delete` meanwhile."""
    containerd = psutil.Process(vm.containerd.pid)
    containerd.suspend()
    try:
        yield
    finally:
        containerd.resume()


def _kill(vm: Box, container: str) -> None:
    """Its shim, and with that QEMU."""
    shim = vm.shim(container)
    family = [shim, *shim.children(recursive=True)]
    shim.kill()
    eventually(lambda: not any(process.is_running() for process in family), "shim and QEMU are gone", _DEADLINE_S)


def _lose_power(vm: Box, container: str) -> None:
    """What of a dead container is on no disk is gone, as after a reboot."""
    cell = vm.containerd.cell
    address = cell.path(f"/run/containerd/io.containerd.runtime.v2.task/default/{container}/address").read_text()
    cell.path(address.removeprefix("unix://")).unlink()
    key, netns = cni.cni_id(container).removeprefix("qemubox-"), f"/run/netns/{cni.cni_id(container)}"
    cni.run(cell, "rm", "-r", f"/run/qemubox/vm/{key}")
    cni.run(cell, "umount", netns)
    cni.run(cell, "rm", netns)


def _is_well(neighbour: Inside, net: cni.Net) -> bool:
    return neighbour.do(f"ping -c 1 -W 10 {net.ip4}")[0] == 0


@pytest.mark.keeps_image
@pytest.mark.on("2")
@pytest.mark.parametrize("power", ["stays", "goes"])
def test_it_gives_back_what_a_dead_container_had(vm: Box, power: str) -> None:
    net = cni.bridge()
    cell = vm.containerd.cell
    with cni.configured(vm, net), inside(vm, *net.options) as neighbour:
        owners = {cni.cni_id(neighbour.container)}
        container = vm.start("sleep", "1000", options=("--null-io", *net.options))
        assert {*net.leases(cell).values()} == owners | {cni.cni_id(container)}
        with _without_containerd(vm):
            _kill(vm, container)
            there = {"attachment", "network namespace"}
            # What it wrote is its snapshot's, which is there.
            kept = {("writable layer", "kept")}
            if power == "goes":
                _lose_power(vm, container)
                seen = removed = there - {"network namespace"}
            else:  # the journal has it all
                seen, removed = there | {"container"}, {"container"}
            assert _gc(vm, "--dry-run") == {(what, "found") for what in seen} | kept
            assert _gc(vm) == {(what, "removed") for what in removed} | kept
            assert _gc(vm) == kept
            assert {*net.leases(cell).values()} == owners
            assert _is_well(neighbour, net)
        vm.containerd.ctr("tasks", "delete", "-f", container)
        vm.remove(container).checked()
        assert _is_well(neighbour, net)
    assert net.leases(cell) == {}
