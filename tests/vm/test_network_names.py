"""/etc/hosts, /etc/hostname and /etc/resolv.conf of a container that has the network of the configuration."""

from dataclasses import replace

import pytest

from harness import cni
from harness.box import RUN_DEADLINE_S, RUNTIMES, Box
from harness.images import BUSYBOX
from harness.inside import inside

pytestmark = pytest.mark.timeout(150)

_ETC = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
_MOUNTS = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
]
_DNS = {"nameservers": ["192.0.2.53", "2001:db8::53"], "search": ["example.org"], "options": ["ndots:2"]}


@pytest.fixture
def net() -> cni.Net:
    """A network that names its own servers."""
    network = cni.bridge()
    (plugin,) = network.plugins
    return replace(network, plugins=({**plugin, "dns": _DNS},))


def test_they_are_there(vm: Box, net: cni.Net) -> None:
    """The container finds itself by its name, at the addresses that it has."""
    with cni.configured(vm, net), inside(vm, *net.options) as container:
        name = container.text("hostname")
        assert container.text("cat /etc/hostname") == name
        assert container.text("cat /etc/resolv.conf").splitlines() == [
            "nameserver 192.0.2.53",
            "nameserver 2001:db8::53",
            "search example.org",
            "options ndots:2",
        ]
        addresses = cni.addresses(vm, net, cni.cni_id(container.container))
        hosts = [line.split() for line in container.text("cat /etc/hosts").splitlines()]
        assert hosts[0] == ["127.0.0.1", "localhost"]
        assert hosts[-2:] == [[address, name] for address in addresses]
        container.text(f"ping -c 1 -W 10 {name}")
        container.text("echo 10.1.2.3 other >>/etc/hosts")  # as on any other file
        container.text("grep -q other /etc/hosts")


def test_what_the_client_mounts_counts(vm: Box, net: cni.Net) -> None:
    path = vm.containerd.cell.directory / f"resolv-{vm.new_id()}"
    path.write_text("nameserver 10.0.0.1\n")
    mount = ("--mount", f"type=bind,src={path},dst=/etc/resolv.conf,options=rbind:ro")
    with cni.configured(vm, net), inside(vm, *mount, *net.options) as container:
        assert container.text("cat /etc/resolv.conf") == "nameserver 10.0.0.1"
        assert container.text("cat /etc/hostname") == container.text("hostname")
    path.unlink()


def test_a_read_only_root_goes_without(vm: Box, net: cni.Net) -> None:
    """A view of an image that has no such files: nothing can be mounted in their place, and the container starts."""
    container = vm.new_id()
    words = ("--runtime", RUNTIMES["qemubox"], *net.options, BUSYBOX, container, "sleep", "1d")
    ctr = vm.containerd.ctr
    with cni.configured(vm, net):
        ctr("containers", "create", *words).checked()
        # `ctr` has mounts at places that the image has not.
        vm.containerd.change_spec(container, {"mounts": _MOUNTS})
        # In the place of its own, by that one's name: one that nothing names is for containerd's garbage collector.
        parent = _parent(vm, container)
        ctr("snapshots", "rm", container).checked()
        ctr("snapshots", "view", container, parent).checked()
        vm.containerd.create_task(container).checked()
        vm.containerd.start_task(container).checked()
        exec_ = ("tasks", "exec", "--exec-id", "e", container)
        found = ctr(*exec_, "sh", "-c", "touch /x; ls /etc; ip -o -4 a show eth0", deadline_s=RUN_DEADLINE_S)
        assert "Read-only file system" in found.error
        assert cni.addresses(vm, net, cni.cni_id(container))[0] in found.text
        assert not {path.rpartition("/")[2] for path in _ETC} & set(found.text.split())
        vm.kill(container).checked()
        vm.wait_stopped(container)
        vm.delete_task(container).checked()
        vm.remove(container).checked()


def _parent(box: Box, container: str) -> str:
    """The snapshot of the image that a container's own is upon."""
    for line in box.containerd.ctr("snapshots", "ls").checked().text.splitlines():
        key, parent, _kind = line.split() if len(line.split()) == 3 else ("", "", "")
        if key == container:
            return parent
    raise AssertionError(f"{container} has no snapshot")
