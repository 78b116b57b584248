"""Networks that others have made: in a namespace that is named, by hooks, or between Create and Start."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from harness import cni
from harness.attached import CLIENT, Attached, attached, namespace
from harness.box import RUNTIMES, Box
from harness.deadline import eventually
from harness.flavours import CHECKOUT
from harness.images import BUSYBOX
from harness.inside import inside
from harness.messages import assert_one_clear_line

_DEADLINE_S = 30.0
_ADDRESSES = "ip -o address show dev eth0 scope global | awk '{ print $4 }' | sort"


def _state(joined: Attached) -> tuple[str, ...]:
    """What a machine that had the namespace may have changed in it.

    Not the length of a queue: where it is 0 the kernel makes it 1000 with an interface's first qdisc, for good
    (net/sched/sch_api.c, qdisc_create).
    """
    looks = ("tc qdisc", "ip -d link", "ip address", "ip route show table all", "ip rule")
    return tuple(joined.run(*look.split()).replace("default qlen 1000", "default ") for look in looks)


@pytest.mark.keeps_image
@pytest.mark.on("2")
def test_after_delete_a_kill_of_the_shim_or_a_create_that_failed_it_is_as_before(vm: Box) -> None:
    """Without a trace of the first machine the second one has the same network."""
    net = cni.bridge()
    with cni.configured(vm, net), attached(vm, net) as joined:
        before = _state(joined)
        with inside(vm, *joined.options) as container:
            container.text(f"ping -c 1 -W 10 {net.ip4}")
            assert "ingress" in joined.run("tc", "qdisc")
        assert _state(joined) == before
        killed = vm.start("sleep", "1000", options=("--null-io", *joined.options))
        vm.shim(killed).kill()
        vm.wait_stopped(killed)
        vm.delete_task(killed)
        vm.remove(killed).checked()
        eventually(lambda: _state(joined) == before, "the namespace is as before", _DEADLINE_S)
        assert vm.run("/no/such/program", options=joined.options).code != 0
        assert _state(joined) == before
        vm.run("ping", "-c", "1", "-W", "10", net.ip4, options=joined.options).checked()


@pytest.mark.on("2")
def test_what_cannot_be_joined_is_refused_by_name(vm: Box) -> None:
    """No path, no namespace, one of another kind, the host's, one that leads to a machine already."""
    cell = vm.containerd.cell
    net = cni.bridge()
    refusals = {
        "/run/netns/nowhere": "No such file",
        "/etc/passwd": "it is no network namespace",
        f"/proc/{vm.containerd.pid}/ns/uts": "of another kind than network",
        f"/proc/{vm.containerd.pid}/ns/net": "it is the host's",
    }
    for path, words in refusals.items():
        result = vm.run("true", options=("--with-ns", f"network:{path}"))
        assert_one_clear_line(result, f"network namespace {path}: .*{words}")
    with cni.configured(vm, net), attached(vm, net) as joined, inside(vm, *joined.options) as container:
        result = vm.run("true", options=joined.options)
        assert_one_clear_line(result, "loqb-eth0", "another virtual machine already", "of its own")
        container.text(f"ping -c 1 -W 10 {net.ip4}")
    with namespace(cell) as joined:
        joined.run("ip", "tuntap", "add", "tun0", "mode", "tun")
        assert_one_clear_line(vm.run("true", options=joined.options), "interface tun0 .*goes to another program")


@pytest.mark.newest_runc
@pytest.mark.on("2")
def test_hooks_make_it(box: Box) -> None:
    """As nerdctl's: createRuntime has CNI connect whatever the pid is in, poststop takes it back without a pid."""
    net = cni.bridge().chained(cni.PORTMAP, cni.FIREWALL)
    with cni.configured(box, net):
        container = box.new_id()
        command = ("sh", "-c", f"{_ADDRESSES}; ping -c 1 -W 10 {net.ip4} >&2 && ping -c 1 -W 10 {net.ip6} >&2")
        words = ("--runtime", RUNTIMES[box.runtime], BUSYBOX, container, *command)
        box.containerd.ctr("containers", "create", *words).checked()
        hooks = {"createRuntime": [_hook(box, net, "hook-add")], "poststop": [_hook(box, net, "hook-del")]}
        box.containerd.change_spec(container, {"hooks": hooks})
        result = box.containerd.ctr("tasks", "start", container, deadline_s=_DEADLINE_S).checked()
        assert len(result.text.split()) == 2, result
        box.delete_task(container)
        box.remove(container).checked()
        eventually(lambda: net.leases(box.containerd.cell) == {}, "poststop has given the lease back", _DEADLINE_S)


@pytest.mark.parametrize("ours", [False, True], ids=["nothing", "ours"])
def test_between_create_and_start(vm: Box, ours: bool) -> None:
    """`ctr run --cni`: its network counts; one that the configuration has given before is given back."""
    net, own = cni.bridge(), cni.bridge()
    # ctr has DEL run when the namespace has gone, by which this plugin finds no rules of its own to remove.
    net = replace(net, plugins=({**net.plugins[0], "ipMasq": False},))
    cell = vm.containerd.cell
    with cni.configured(vm, own), _for_clients(vm, net):
        options = own.options if ours else ()
        with inside(vm, "--cni", *options) as container:
            addresses = cni.addresses(vm, net, f"default-{container.container}")
            assert sorted(line.split("/")[0] for line in container.text(_ADDRESSES).split()) == sorted(addresses)
            container.text(f"ping -c 1 -W 10 {net.ip4} && ping -c 1 -W 10 {net.ip6}")
            assert len(container.text("ls /sys/class/net").split()) == 2
            assert own.leases(cell) == {}
        assert net.leases(cell) == {}


@pytest.mark.on("2")
def test_the_configuration_s_network(vm: Box) -> None:
    """By default, by annotation, or none at all by annotation. What CNI's tuning plugin sets is set in the guest."""
    default, other = cni.bridge().chained(cni.TUNING), cni.bridge()
    with cni.configured(vm, default, other), vm.qemubox.changed({"network": {"name": default.name}}):
        for options, net in (((), default), (other.options, other)):
            with inside(vm, *options) as container:
                addresses = cni.addresses(vm, net, cni.cni_id(container.container))
                assert sorted(line.split("/")[0] for line in container.text(_ADDRESSES).split()) == sorted(addresses)
                container.text(f"ping -c 1 -W 10 {net.ip4}")
                assert (container.number("cat /proc/sys/net/core/somaxconn") == 511) is (net is default)
                shown = vm.inspect(container.container)
                assert shown["netns"] == f"/run/netns/{cni.cni_id(container.container)}"
                mac = container.text("cat /sys/class/net/eth0/address")
                kernel = os.path.exists("/dev/vhost-net")
                assert shown["interfaces"] == {"eth0": {"mac": mac, "tap": "loqb-eth0", "queues": 1, "vhost": kernel}}
        result = vm.run("ls", "/sys/class/net", options=("--annotation", "io.qemubox.network.name=none"))
        assert result.checked().text.split() == ["lo"]
        assert default.leases(vm.containerd.cell) == other.leases(vm.containerd.cell) == {}


def _hook(box: Box, net: cni.Net, command: str) -> dict[str, object]:
    cell = box.containerd.cell
    words = [str(CLIENT), str(box.qemubox.conf_dir), str(cell.directory), command, net.name, "eth0"]
    return {
        "path": sys.executable,
        "args": [sys.executable, *words],
        "env": [f"PYTHONPATH={CHECKOUT}", f"PATH={os.environ['PATH']}"],
    }


@contextmanager
def _for_clients(box: Box, net: cni.Net) -> Iterator[None]:
    """The network is where `ctr run --cni` looks for one."""
    cell = box.containerd.cell
    plugins, path = cell.path("/opt/cni/bin"), cell.path(f"/etc/cni/net.d/{net.name}.conflist")
    made = [plugins / each.name for each in cell.path("/usr/lib/cni").iterdir()]
    for each in made:
        each.symlink_to(f"/usr/lib/cni/{each.name}")
    path.write_text(net.conflist)
    try:
        yield
    finally:
        path.unlink()
        for each in made:
            each.unlink()
        cni.remove_link(cell, net.link)
