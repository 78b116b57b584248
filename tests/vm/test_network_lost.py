"""What is killed while a container has a network, or gets one, or gives it back: the lease and all else comes free."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import cni
from harness.box import Box
from harness.deadline import eventually
from harness.images import BUSYBOX
from harness.plugin import behind, plugins

_DEADLINE_S = 30.0


def _net() -> cni.Net:
    return cni.bridge().chained(cni.PORTMAP, cni.FIREWALL)


@pytest.mark.on("2")
@pytest.mark.parametrize("victim", ["shim", "QEMU"])
def test_a_loss_while_it_runs(vm: Box, victim: str) -> None:
    net = _net()
    with cni.configured(vm, net):
        container = vm.start("sleep", "1000", options=("--null-io", *net.options))
        assert {*net.leases(vm.containerd.cell).values()} == {cni.cni_id(container)}
        with vm.events() as events:
            _kill(vm, container, victim)
            assert events.wait("/tasks/exit", container, _DEADLINE_S).fields["exit_status"] == 137
        _remove(vm, container)
        eventually(lambda: net.leases(vm.containerd.cell) == {}, "the lease is free", _DEADLINE_S)
        vm.run("ping", "-c", "1", "-W", "10", net.ip4, options=net.options, container=container).checked()


@pytest.mark.release
@pytest.mark.on("2")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_containerd_restarts(vm: Box, number: signal.Signals) -> None:
    """Nobody notices on the network, and Delete gives it back to a containerd that has not seen it given."""
    net = _net()
    with cni.configured(vm, net):
        container = vm.start("httpd", "-f", options=("--null-io", *net.options))
        leases = net.leases(vm.containerd.cell)
        ip4, ip6 = cni.addresses(vm, net, cni.cni_id(container))
        vm.containerd.stop(number)
        try:
            _ping(vm, ip4)
            _ping(vm, ip6)
        finally:
            vm.containerd.start()
        assert vm.status(container) == "RUNNING"
        assert net.leases(vm.containerd.cell) == leases
        _ping(vm, ip4)
        vm.kill(container).checked()
        _remove(vm, container)
        assert net.leases(vm.containerd.cell) == {}


def _ping(vm: Box, address: str) -> None:
    """From the host, whose own address of IPv6 on a new bridge is usable a moment later."""
    ping = vm.containerd.cell.inside(["busybox", "ping", "-c", "1", "-W", "1", address])

    def answers() -> bool:
        return subprocess.run(ping, check=False, capture_output=True, timeout=_DEADLINE_S).returncode == 0

    eventually(answers, f"{address} answers", _DEADLINE_S)


@contextmanager
def _stopping(vm: Box, net: cni.Net, command: str) -> Iterator[Path]:
    """The network's last plugin does not come to an end the first time that it is to do this; then its pid is there."""
    pid = vm.containerd.cell.directory / "tmp" / "pid-of-plugin"
    script = f"""
    if [ $CNI_COMMAND = {command} ] && [ ! -e {pid} ]; then
      echo $$ >{pid}.new; mv {pid}.new {pid}; exec sleep 1000
    fi
    [ $CNI_COMMAND != ADD ] || previous
    """
    with plugins(vm, {"stopping": script}), cni.configured(vm, net):
        try:
            yield pid
        finally:
            pid.unlink(missing_ok=True)


@pytest.mark.release
@pytest.mark.on("2")
@pytest.mark.parametrize("victim", ["plugin", "shim", "QEMU", "containerd"])
def test_a_loss_during_add(vm: Box, victim: str) -> None:
    net = behind(_net(), "stopping")
    container = vm.new_id()
    arguments = vm.run_arguments(container, ["sleep", "1000"], ["-d", "--null-io", *net.options], BUSYBOX)
    with _stopping(vm, net, "ADD") as pid:
        with vm.containerd.running(arguments) as ctr:
            eventually(pid.exists, "the plugin runs", _DEADLINE_S)
            assert {*net.leases(vm.containerd.cell).values()} == {cni.cni_id(container)}
            _kill(vm, container, victim, pid)
            if victim == "QEMU":
                _kill(vm, container, "plugin", pid)
            said = _end_of(ctr)
        if victim == "containerd":
            vm.containerd.start()
        if victim == "plugin":
            assert "'stopping' was killed by SIGKILL" in said
        _remove(vm, container)
        eventually(lambda: net.leases(vm.containerd.cell) == {}, "the lease is free", _DEADLINE_S)


@pytest.mark.release
@pytest.mark.keeps_image
@pytest.mark.on("2")
@pytest.mark.parametrize("victim", ["plugin", "shim"])
def test_a_loss_during_del(vm: Box, victim: str) -> None:
    net = behind(_net(), "stopping")
    with _stopping(vm, net, "DEL") as pid:
        container = vm.start("sleep", "1000", options=("--null-io", *net.options))
        vm.kill(container).checked()
        vm.wait_stopped(container)
        with vm.containerd.running(["tasks", "delete", container]) as ctr:
            eventually(pid.exists, "the plugin runs", _DEADLINE_S)
            _kill(vm, container, victim, pid)
            _end_of(ctr)
        _remove(vm, container)
        eventually(lambda: net.leases(vm.containerd.cell) == {}, "the lease is free", _DEADLINE_S)


@pytest.mark.release
@pytest.mark.on("2")
def test_a_plugin_that_cannot_take_it_back(vm: Box) -> None:
    """The container ends all the same, its lease comes free by the others, and `qemubox gc` has the rest done later."""
    net = behind(_net(), "failing")
    script = "case $CNI_COMMAND in ADD) previous ;; DEL) echo out of order >&2; exit 1 ;; esac"
    with plugins(vm, {"failing": script}) as directory, cni.configured(vm, net):
        offset = vm.containerd.log_size()
        vm.run("true", options=net.options).checked()
        assert "plugin 'failing' ended with exit status 1" in vm.containerd.log_tail(offset)
        assert net.leases(vm.containerd.cell) == {}
        left = vm.qemubox.command("gc")
        assert left.returncode != 0
        assert "out of order" in left.stdout + left.stderr
        (directory / "failing").write_text("#!/bin/sh\ncat >/dev/null\n")
        done = vm.qemubox.command("gc")
        assert done.returncode == 0, done.stdout


def _kill(vm: Box, container: str, victim: str, plugin: Path | None = None) -> None:
    match victim:
        case "shim":
            vm.shim(container).kill()
        case "QEMU":
            vm.processes("qemu-system-x86_64")[0].kill()
        case "containerd":
            vm.containerd.stop(signal.SIGKILL)
        case _:
            assert plugin is not None
            with contextlib.suppress(ProcessLookupError):  # it ended with QEMU
                os.kill(int(plugin.read_text()), signal.SIGKILL)


def _end_of(ctr: "subprocess.Popen[bytes]") -> str:
    """What it says at last."""
    _, said = ctr.communicate(timeout=_DEADLINE_S)
    return said.decode()


def _remove(vm: Box, container: str) -> None:
    vm.wait_stopped(container)
    vm.containerd.ctr("tasks", "delete", "-f", container)
    vm.containerd.ctr("containers", "delete", container)
    eventually(lambda: not vm.processes(container), f"nothing is left of {container}", _DEADLINE_S)
