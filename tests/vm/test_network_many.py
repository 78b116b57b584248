"""Many containers with a network, in a row and at once: the leases at any time are those of the containers that run."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import cni
from harness.box import Box
from harness.images import BUSYBOX
from harness.inside import inside

_ADDRESSES = "ip -o address show dev eth0 scope global | awk '{ print $4 }'"
_DEADLINE_S = 200.0


def _net(addresses: int) -> cni.Net:
    return cni.bridge(addresses=addresses).chained(cni.PORTMAP, cni.FIREWALL, cni.TUNING)


@pytest.mark.release
@pytest.mark.on("2")
@pytest.mark.timeout(1800)
def test_in_a_row(vm: Box, pytestconfig: pytest.Config) -> None:
    """In a range of four addresses, of which one is in use all the time: each is given again and again.

    Of five one has an exit status, and one cannot be started.
    """
    net = _net(4)
    commands = {3: ("sh", "-c", "exit 7"), 4: ("/no/such/program",)}
    codes = {3: 7, 4: 1}
    with cni.configured(vm, net), inside(vm, *net.options) as standing:
        kept = net.leases(vm.containerd.cell)
        assert [*kept.values()] == [cni.cni_id(standing.container)] * 2
        for number in range(pytestconfig.getoption("network_runs")):
            command = commands.get(number % 5, ("ping", "-c", "1", "-W", "10", net.ip4))
            assert vm.run(*command, options=net.options).code == codes.get(number % 5, 0), number
            assert net.leases(vm.containerd.cell) == kept, number
        standing.text(f"ping -c 1 -W 10 {net.ip4}")


@pytest.mark.on("2")
@pytest.mark.timeout(600)
def test_at_once(vm: Box, pytestconfig: pytest.Config) -> None:
    """All begin at once in a range that has just enough, then every other one ends, then the rest."""
    count: int = pytestconfig.getoption("network_at_once")
    net = _net(count)
    names = [vm.new_id() for _ in range(count)]
    with cni.configured(vm, net), ThreadPoolExecutor(count) as pool:
        seen = dict(zip(names, pool.map(lambda name: _begin(vm, net, name), names), strict=True))
        assert seen == {name: sorted(cni.addresses(vm, net, cni.cni_id(name))) for name in names}
        for staying in (names[1::2], []):
            list(pool.map(lambda name: _end(vm, name), [name for name in seen if name not in staying]))
            seen = {name: seen[name] for name in staying}
            assert net.leases(vm.containerd.cell) == {
                address: cni.cni_id(name) for name in staying for address in seen[name]
            }


def _begin(vm: Box, net: cni.Net, name: str) -> list[str]:
    """Its addresses, as it sees them, while it runs on."""
    arguments = vm.run_arguments(name, ["sleep", "1000"], ["-d", "--null-io", *net.options], BUSYBOX)
    vm.containerd.ctr(*arguments, deadline_s=_DEADLINE_S).checked()
    look = ("tasks", "exec", "--exec-id", "look", name, "sh", "-c", _ADDRESSES)
    found = vm.containerd.ctr(*look, deadline_s=_DEADLINE_S).checked().text.split()
    return sorted(address.partition("/")[0] for address in found)


def _end(vm: Box, name: str) -> None:
    vm.kill(name).checked()
    vm.wait_stopped(name, deadline_s=_DEADLINE_S)
    vm.delete_task(name)
    vm.remove(name).checked()
