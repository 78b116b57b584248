"""Containers on the production path: KVM, the kernel's vsock, vhost-net, clones of the template with private memory."""

import shlex

import pytest

from tests.kvm.harness.host import CONTAINER_DEADLINE_S, IMAGE, RUNTIME, Host

_NEEDS = pytest.mark.needs("test_release_is_installed")
GATEWAY = "10.86.0.1"


class Containers:
    """What a container has, and what can be done with it."""

    @_NEEDS
    def test_container_has_our_kernel(self, host: Host) -> None:
        release = host.run_container("kernel", "uname -r")
        assert release.endswith("-qemubox")
        assert release != host.output("uname -r")

    @_NEEDS
    def test_machine_runs_with_kvm_as_a_clone(self, host: Host) -> None:
        started = host.start("box")
        host.times.record("start of a clone", started.seconds)
        found = host.inspect("box")
        assert found["accelerator"] == "kvm"
        assert found["link"] == "kernel"
        assert found["memory"] == "private"
        assert found["template"]

    @pytest.mark.needs("test_machine_runs_with_kvm_as_a_clone")
    def test_exec(self, host: Host) -> None:
        assert host.exec("box", "sh -c 'echo $((6 * 7)) on $(uname -s)'") == "42 on Linux"
        failed = host.ctr("task exec --exec-id fails box sh -c 'exit 5'", check=False)
        assert failed.status == 5

    @pytest.mark.needs("test_machine_runs_with_kvm_as_a_clone")
    def test_interface_is_carried_by_vhost_net(self, host: Host) -> None:
        interfaces = host.inspect("box")["interfaces"]
        assert isinstance(interfaces, dict)
        assert [interface["vhost"] for interface in interfaces.values()] == [True]

    @pytest.mark.needs("test_interface_is_carried_by_vhost_net")
    def test_network_reaches_the_host(self, host: Host) -> None:
        host.run(f"systemd-run --quiet --unit=lane-httpd /mnt/busybox httpd -f -p {GATEWAY}:8080 -h /mnt/www")
        try:
            host.wait_for(f"/mnt/busybox nc -w 2 {GATEWAY} 8080 </dev/null", "the host's server")
            assert host.exec("box", f"ping -c 1 -W 20 {GATEWAY}").count("1 packets received") == 1
            assert fetch(host, "box", GATEWAY, 8080, "/index.html").endswith("from the host")
        finally:
            host.run("systemctl stop lane-httpd.service")

    @pytest.mark.needs("test_interface_is_carried_by_vhost_net")
    def test_two_containers_at_once_reach_each_other(self, host: Host) -> None:
        host.start("second", "httpd -f -p 80 -h /etc")
        first, second = host.inspect("box"), host.inspect("second")
        assert first["template"] == second["template"]
        assert [each["memory"] for each in (first, second)] == ["private", "private"]
        assert first["qemu_pid"] != second["qemu_pid"]
        assert "root:x:0:" in fetch(host, "box", host.address("second"), 80, "/group")
        host.remove("second")

    @_NEEDS
    def test_terminal(self, host: Host) -> None:
        with host.machine.terminal(f"{host.suite.ctr} run --rm -t --runtime {RUNTIME} {IMAGE} tty sh") as terminal:
            terminal.expect("/ # ", CONTAINER_DEADLINE_S)
            terminal.type("tty; stty size\n")
            assert "/dev/pts/0" in terminal.expect("30 100")
            terminal.resize(41, 123)
            terminal.type("until [ \"$(stty size)\" = '41 123' ]; do sleep 0.1; done; echo re'sized'\n")
            terminal.expect("resized")
            # Ctrl+C comes when the program runs, and not while the shell still reads its line. A signal that comes just
            # before a `sleep` is heard of when that ends, so it is a short one.
            loop = 'trap "echo inter"rupted"; exit 7" INT; echo wai""ting; while :; do sleep 0.2; done'
            terminal.type(f"sh -c '{loop}'; echo status $?\n")
            terminal.expect("waiting")
            terminal.type("\x03")
            terminal.expect("interrupted")
            terminal.expect("status 7")
            terminal.expect("/ # ")
            terminal.type("exit 3\n")
            assert terminal.ends() == 3

    @_NEEDS
    def test_commit(self, host: Host) -> None:
        host.start("writer", "sh -c 'echo committed >/root/new; rm /etc/group; sleep 100000'")
        host.wait_for(f"{host.suite.ctr} task exec --exec-id r$(date +%N) writer test -e /root/new", "what is written")
        host.run(f"qemubox commit --address {host.suite.socket} writer localhost/kvm/committed:1", CONTAINER_DEADLINE_S)
        host.remove("writer")
        words = host.run_container(
            "reader", "sh -c 'cat /root/new; test -e /etc/group || echo no group'", image="localhost/kvm/committed:1"
        )
        assert words.splitlines() == ["committed", "no group"]


class ColdBoot:
    """Without a template."""

    @_NEEDS
    def test_cold_boot(self, host: Host) -> None:
        script = '/^\\[template\\]/,/^\\[[^t]/ s/^# mode = .*/mode = "off"/'
        host.run(f"sed -i.lane {shlex.quote(script)} /etc/qemubox/config.toml")
        try:
            started = host.start("cold")
            host.times.record("start of a machine that boots", started.seconds)
            found = host.inspect("cold")
            assert (found["memory"], found["template"], found["accelerator"]) == ("booted", "", "kvm")
            host.remove("cold")
        finally:
            host.run("mv /etc/qemubox/config.toml.lane /etc/qemubox/config.toml")


class Ended:
    """`box` of the steps before, where no reboot takes it."""

    @pytest.mark.needs("test_machine_runs_with_kvm_as_a_clone")
    def test_container_ends_and_nothing_is_left(self, host: Host) -> None:
        host.remove("box")
        assert host.output("qemubox ps --quiet") == ""
        assert host.output("ls /run/qemubox/vm 2>/dev/null || true") == ""


def fetch(host: Host, name: str, address: str, port: int, path: str) -> str:
    """What a server answers a container. Not by busybox's wget: linked statically, it wants files of glibc's."""
    request = f"printf 'GET {path} HTTP/1.0\\r\\n\\r\\n'; sleep 2"
    return host.exec(name, f'sh -c "({request}) | nc -w 30 {address} {port}"')


def state(host: Host, name: str) -> str:
    """What containerd says of a task: RUNNING, STOPPED, or nothing where there is none."""
    return host.output(f"{host.suite.ctr} task ls | awk '$1 == \"{name}\" {{ print $3 }}'")
