"""What can go wrong when a container gets its network: it is told in one line, and nothing is left."""

from dataclasses import replace

import pytest

from harness import cni
from harness.attached import attached
from harness.box import Box
from harness.containerd import Result
from harness.inside import inside
from harness.messages import assert_one_clear_line
from harness.plugin import behind, plugins

# What a plugin of the tests' own does on ADD, behind a bridge that has made a link and taken an address; DEL succeeds.
_ERROR = """{"cniVersion": "1.0.0", "code": 107, "msg": "the rack is on fire", "details": "aisle 7"}"""
_FAULTS = {
    "error": (f"echo '{_ERROR}'; exit 1", "code 107: the rack is on fire; aisle 7"),
    "garbage": ("echo 'eth0 is up!'", "no CNI result.*eth0 is up!"),
    "nothing": ("exit 0", "printed nothing"),
    "status": ("echo 'segfault at 0' >&2; exit 139", "exit status 139.*segfault at 0"),
    "killed": ("kill -KILL $$", "killed by SIGKILL"),
    "hangs": ("exec sleep 1000", "did not end within 1 s"),
    "noise": ("yes", "more than 1048576 bytes"),
}


def _run(vm: Box, net: cni.Net) -> Result:
    return vm.run("true", options=net.options)


@pytest.mark.on("2")
def test_no_such_network(vm: Box) -> None:
    result = vm.run("true", options=("--annotation", "io.qemubox.network.name=nowhere"))
    assert_one_clear_line(result, "network.name = 'nowhere'", str(vm.qemubox.conf_dir), 'or "none"')


@pytest.mark.on("2")
def test_a_configuration_that_is_no_json(vm: Box) -> None:
    net = cni.bridge()
    with cni.file(vm, "torn.conflist", net.conflist[:-20]) as path:
        assert_one_clear_line(_run(vm, net), f"network.name = '{net.name}'", str(path))


@pytest.mark.on("2")
def test_a_plugin_that_is_not_there(vm: Box) -> None:
    net = behind(cni.bridge(), "nobody-has-this")
    with cni.configured(vm, net):
        result = _run(vm, net)
    assert_one_clear_line(result, "'nobody-has-this' is not in /opt/cni/bin, /usr/lib/cni", f"{net.name}.conflist")


@pytest.mark.on("2")
@pytest.mark.parametrize("fault", _FAULTS)
def test_a_plugin_that_fails(vm: Box, fault: str) -> None:
    script, words = _FAULTS[fault]
    net = behind(cni.bridge(), "faulty")
    with plugins(vm, {"faulty": f"[ $CNI_COMMAND = ADD ] || exit 0\n{script}"}, timeout_s=1), cni.configured(vm, net):
        result = _run(vm, net)
        assert net.leases(vm.containerd.cell) == {}
    assert_one_clear_line(result, f"CNI ADD of network '{net.name}'", f"{net.name}.conflist", "plugin 'faulty'", words)


@pytest.mark.release
@pytest.mark.on("2")
def test_a_range_that_is_exhausted(vm: Box) -> None:
    """Who has the address keeps it; the next gets it once it is given back."""
    net = cni.bridge(addresses=1)
    with cni.configured(vm, net):
        with inside(vm, *net.options) as first:
            leases = net.leases(vm.containerd.cell)
            assert {*leases.values()} == {cni.cni_id(first.container)}
            assert_one_clear_line(_run(vm, net), "plugin 'bridge'", f"{net.name}.conflist", "no IP addresses available")
            assert net.leases(vm.containerd.cell) == leases
            first.text(f"ping -c 1 -W 10 {net.ip4}")
        _run(vm, net).checked()


@pytest.mark.release
@pytest.mark.on("2")
def test_an_address_that_somebody_has(vm: Box) -> None:
    """Found by IPv6's search for duplicates. The plugin waits for that, and then does not mind."""
    net = cni.bridge()
    taken = cni.static(net, f"{net.ip6[:-1]}2/64")
    taken = replace(taken, plugins=({**taken.plugins[0], "enabledad": True},))
    with cni.configured(vm, net, taken), attached(vm, net) as somebody:
        assert somebody.ip6 == f"{net.ip6[:-1]}2"
        result = _run(vm, taken)
    assert_one_clear_line(result, f"{taken.name}.conflist", f"address {somebody.ip6} of interface eth0 is in use")


@pytest.mark.release
@pytest.mark.on("2")
def test_an_interface_that_vanishes(vm: Box) -> None:
    """The container runs on, without it, and ends as any other."""
    net = cni.bridge()
    with cni.configured(vm, net):
        with inside(vm, *net.options) as container:
            container.text(f"ping -c 1 -W 10 {net.ip4}")
            netns = f"/run/netns/{cni.cni_id(container.container)}"
            cni.run(vm.containerd.cell, "nsenter", f"--net={netns}", "ip", "link", "del", "eth0")
            assert container.do(f"ping -c 1 -W 1 {net.ip4}")[0] != 0
            assert container.text("cat /sys/class/net/eth0/address")
        assert net.leases(vm.containerd.cell) == {}


@pytest.mark.on("2")
def test_a_tap_that_cannot_be_made(vm: Box) -> None:
    net = cni.bridge()
    cell = vm.containerd.cell
    with cni.configured(vm, net):
        cni.run(cell, "mount", "-t", "tmpfs", "tmpfs", "/dev/net")
        try:
            assert_one_clear_line(_run(vm, net), "/dev/net/tun cannot be opened", "load the kernel module tun")
        finally:
            cni.run(cell, "umount", "/dev/net")
        assert net.leases(cell) == {}


@pytest.mark.release
@pytest.mark.on("2")
def test_a_tap_whose_name_is_taken(vm: Box) -> None:
    net = behind(cni.bridge(), "occupying")
    script = """
    [ $CNI_COMMAND = ADD ] || exit 0
    nsenter --net=$CNI_NETNS ip link add loqb-eth0 type veth peer name other >&2 || exit 1
    previous
    """
    with plugins(vm, {"occupying": script}), cni.configured(vm, net):
        assert_one_clear_line(_run(vm, net), "interface eth0", f"{net.name}.conflist")
        assert net.leases(vm.containerd.cell) == {}
