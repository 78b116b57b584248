"""install.sh where something is missing or fails: a clear message, and the host as it was before. Needs root."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.deploy.release_site import PREFIX, Site, changes, make_release, site


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_release(tmp_path_factory.mktemp("release") / "qemubox-1.0-linux-x86_64")


@pytest.fixture
def host() -> Iterator[Site]:
    with site() as made:
        made.with_systemd()
        yield made


def _refused(host: Site, release: Path, *options: str) -> str:
    """What is said by a run that must fail and change nothing."""
    before = host.tree()
    done = host.install(release, *options)
    assert done.returncode == 1, done.stdout
    assert changes(before, host.tree()) == []
    return done.stderr


def test_without_root(host: Site, release: Path) -> None:
    host.tell("cp", "-a", release, "/var/release")
    before = host.tree()
    done = host.run("setpriv", "--reuid=65534", "--clear-groups", "sh", "/var/release/install.sh")
    assert done.stderr == "install.sh: must be run as root: sudo /var/release/install.sh\n"
    assert (done.returncode, changes(before, host.tree())) == (1, [])


def test_without_kvm_it_warns_and_installs(host: Site, release: Path) -> None:
    host.path("/dev/kvm").unlink()
    done = host.install(release)
    assert done.returncode == 0
    assert "check: warning: there is no /dev/kvm: machines run under QEMU's TCG" in done.stderr
    assert "mend it: modprobe kvm_intel, or kvm_amd" in done.stderr


def test_without_systemd_it_says_what_to_start(release: Path) -> None:
    with site() as host:
        done = host.install(release)
        assert done.returncode == 0
        assert "systemd does not run here" in done.stderr
        assert f"{PREFIX}/bin/qemubox service &" in done.stdout
        assert f"{PREFIX}/bin/containerd --config /etc/qemubox/containerd.toml &" in done.stdout
        assert not host.path("/etc/systemd").exists()


def test_a_kernel_without_a_module(host: Site, release: Path) -> None:
    host.path("/sys/module/cls_u32").rmdir()
    host.program("modprobe", "exit 1")
    host.tell("mount", "--bind", "/dev/null", "/proc/kallsyms")
    upper = "lowerdir=/usr/lib,upperdir=/run/lock/upper,workdir=/run/lock/work"
    host.tell("sh", "-c", "mkdir /run/lock/upper /run/lock/work")
    host.tell("mount", "-t", "overlay", "-o", upper, "overlay", "/usr/lib")
    host.tell("sh", "-c", 'mkdir -p "/usr/lib/modules/$(uname -r)"')
    said = _refused(host, release)
    assert "lacks the modules cls_u32: machines could have no network" in said
    assert "mend it: apt-get install linux-modules-extra-" in said
    assert "nothing was changed" in said
    assert host.install(release, "--skip-checks").returncode == 0


def test_without_tun(host: Site, release: Path) -> None:
    host.path("/dev/net/tun").unlink()
    host.program("modprobe", "exit 1")
    assert "check: failure: there is no /dev/net/tun: machines could have no network" in _refused(host, release)


def test_an_old_kernel_and_another_processor(host: Site, release: Path) -> None:
    host.program("uname", "case $1 in -r) echo 4.19.0-27-amd64 ;; -m) echo aarch64 ;; *) echo Linux ;; esac")
    said = _refused(host, release)
    assert "the kernel is 4.19.0-27-amd64, and the oldest that will do is 5.10" in said
    assert "this is Linux on aarch64: there is only Linux on x86_64" in said
    assert "2 of the checks failed" in said


def test_selinux_without_a_rule_for_the_prefix(host: Site, release: Path) -> None:
    host.write("/sys/fs/selinux/enforce", "1")
    host.program("matchpathcon", "echo system_u:object_r:usr_t:s0")
    said = _refused(host, release)
    assert f"SELinux is enforcing, and has no rule that lets systemd run {PREFIX}/bin/qemubox" in said
    assert f"semanage fcontext -a -t bin_t '{PREFIX}/bin(/.*)?'" in said
    host.program("matchpathcon", "echo system_u:object_r:bin_t:s0")
    host.program("restorecon", 'echo restorecon "$@" >>/run/lock/calls')
    assert host.install(release).returncode == 0
    assert f"restorecon -RF {PREFIX}/bin {PREFIX}/lib/qemubox {PREFIX}/share/qemubox" in host.calls()


def test_apparmor_with_a_profile_for_qemu(host: Site, release: Path) -> None:
    host.write("/sys/module/apparmor/parameters/enabled", "Y\n")
    profiles = "/usr/sbin/ntpd (enforce)\n/usr/libexec/virtiofsd (enforce)\nqemu-system-x86_64 (complain)\n"
    host.write("/sys/kernel/security/apparmor/profiles", profiles)
    done = host.install(release)
    assert done.returncode == 0
    assert "check: warning: AppArmor confines /usr/libexec/virtiofsd : machines may not start" in done.stderr


def test_other_cni_networks_are_left_alone(host: Site, release: Path) -> None:
    host.write("/etc/cni/net.d/10-mine.conflist", '{"name": "mine"}')
    before = host.tree()
    done = host.install(release)
    assert "other CNI networks are left alone: /etc/cni/net.d/10-mine.conflist" in done.stdout
    host.install(release, "--uninstall")
    assert changes(before, host.tree()) == []


@pytest.mark.parametrize("option", ["ro", "noexec"])
def test_a_prefix_that_cannot_be_used(host: Site, release: Path, option: str) -> None:
    host.tell("mount", "-o", f"remount,{option}", "/usr/share")
    said = _refused(host, release)
    assert ("/usr/share cannot be written to" if option == "ro" else "/usr/share is mounted noexec") in said
    assert "mount -o remount," in said


def test_too_little_space_is_told_before(host: Site, release: Path) -> None:
    host.tell("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/usr/share")
    said = _refused(host, release)
    assert "check: failure: /usr/share/qemubox: 1 MiB are free on /usr/share, and 20 are needed" in said


@pytest.mark.parametrize(("place", "size"), [("/usr/share", "96k"), ("/etc/systemd", "8k"), ("/var/lib", "4k")])
def test_a_disk_that_is_full_in_the_middle(host: Site, release: Path, place: str, size: str) -> None:
    host.tell("sh", "-c", f"mkdir -p /run/lock/kept && cp -a {place}/. /run/lock/kept/")
    host.tell("mount", "-t", "tmpfs", "-o", f"mode=755,size={size}", "tmpfs", place)
    host.tell("sh", "-c", f"cp -a /run/lock/kept/. {place}/")
    if place == "/var/lib":
        host.tell("sh", "-c", "head -c 4096 /dev/zero >/var/lib/else")
    said = _refused(host, release, "--skip-checks")
    told = "qemubox-install/journal (is /var full?)" if place == "/var/lib" else "No space left on device"
    assert told in said
    assert said.endswith("install.sh: not installed: the machine is as it was before\n")


def test_a_service_that_does_not_start(host: Site, release: Path) -> None:
    host.write("/run/fake/fail-restart-qemubox-containerd.service", "")
    host.program("journalctl", "echo containerd: bad >&2")
    said = _refused(host, release)
    assert "containerd: bad" in said
    assert "qemubox-containerd.service does not start (see above)" in said
    assert list(host.path("/run/fake/active").iterdir()) == []


def test_an_upgrade_that_fails_leaves_the_old_one_as_it_ran(host: Site, release: Path, tmp_path: Path) -> None:
    newer = make_release(tmp_path / "newer", version="1.1", further={"tree/bin/containerd": "#!/bin/sh\necho 2\n"})
    host.install(release)
    host.write("/run/fake/fail-restart-qemubox-containerd.service", "")
    _refused(host, newer)
    assert host.calls()[-3:] == [
        "systemctl daemon-reload",
        "systemctl try-restart qemubox-containerd.service",
        "systemctl try-restart qemubox.service",
    ]


# What becomes of it is the same wherever it is hit: here, each time something is put in its place.
@pytest.mark.parametrize(("number", "at"), [("TERM", 4), ("TERM", 16), ("KILL", 1), ("KILL", 9), ("KILL", 25)])
def test_a_signal_in_the_middle(host: Site, release: Path, number: str, at: int) -> None:
    count = 'echo x >>/run/lock/count; [ "$(wc -l </run/lock/count)" != '
    host.program("mv", f'{count}{at} ] || kill -{number} $PPID; exec /usr/bin/mv "$@"')
    before = host.tree()
    done = host.install(release)
    if number == "TERM":
        assert done.returncode == 130
        assert done.stderr.endswith("install.sh: not installed: the machine is as it was before\n")
        assert changes(before, host.tree()) == []
        return
    # Nobody could undo anything: the next run does.
    assert changes(before, host.tree()) != []
    assert "would first undo" in host.install(release, "--dry-run").stdout
    done = host.install(release)
    assert done.returncode == 0
    assert "an earlier installation did not come to its end: undoing it" in done.stdout
    host.install(release, "--uninstall")
    assert changes(before, host.tree()) == []


@pytest.mark.parametrize("at", [3, 8])
def test_an_upgrade_that_is_killed_is_undone_by_the_next_run(
    host: Site, release: Path, tmp_path: Path, at: int
) -> None:
    newer = make_release(tmp_path / "newer", version="1.1", further={"tree/share/qemubox/new": "new\n"})
    host.install(release)
    before = host.tree()
    count = 'echo x >>/run/lock/count; [ "$(wc -l </run/lock/count)" != '
    host.program("mv", f'{count}{at} ] || kill -KILL $PPID; exec /usr/bin/mv "$@"')
    assert host.install(newer).returncode < 0
    host.path("/usr/local/sbin/mv").unlink()
    done = host.install(release)
    assert "undoing it" in done.stdout
    assert changes(before, host.tree()) == []


def test_an_uninstallation_that_is_interrupted_before_it_removes_leaves_what_ran_running(
    host: Site, release: Path
) -> None:
    """As by ^C while it looks for what containers have left: nothing is removed, and the services go on."""
    host.install(release)
    host.write(f"{PREFIX}/bin/qemubox", "#!/bin/sh\nkill -INT $PPID\n", 0o755)
    before, ran = host.tree(), {path.name for path in host.path("/run/fake/active").iterdir()}
    assert "qemubox-containerd.service" in ran
    assert host.install(release, "--uninstall").returncode == 130
    assert changes(before, host.tree()) == []
    assert {path.name for path in host.path("/run/fake/active").iterdir()} == ran


def test_another_installation_is_told_with_the_way_to_remove_it(host: Site, release: Path) -> None:
    host.install(release)
    said = _refused(host, release, "--prefix", "/usr/local/other")
    assert f"qemubox is installed in {PREFIX} already, and a host has one" in said
    assert f"--uninstall --prefix {PREFIX}" in said
    assert f"{PREFIX} is installed as full, and this would be shim-only" in _refused(host, release, "--shim-only")


def test_a_checkout_s_installation_of_before_is_known_by_its_unit(host: Site, release: Path) -> None:
    host.write("/etc/systemd/system/qemubox.service", "[Service]\nExecStart=/opt/qemubox/bin/qemubox service\n")
    assert "qemubox is installed in /opt/qemubox already" in _refused(host, release)
    said = _refused(host, release, "--prefix", "/opt/qemubox")
    assert "what is installed in /opt/qemubox is from a checkout, and this is a release" in said


def test_files_of_others_are_not_overwritten(host: Site, release: Path) -> None:
    host.write("/usr/local/bin/containerd", "somebody's", 0o755)
    said = _refused(host, release, "--prefix", "/usr/local")
    assert "check: failure: /usr/local/bin/containerd is there, and not qemubox's" in said
    host.write("/usr/local/bin/qemubox", "another one", 0o755)
    assert "/usr/local/bin/qemubox is there, and no link of qemubox's" in _refused(host, release)


def test_only_one_at_a_time(host: Site, release: Path) -> None:
    before = host.tree()
    done = host.run("flock", "/run", "timeout", "2", "sh", release / "install.sh")
    assert done.returncode == 124
    assert "waiting for another installation to end" in done.stdout
    assert changes(before, host.tree()) == []


def test_busybox_s_tools_will_do(release: Path) -> None:
    """As on a host without GNU coreutils, with whatever applets this busybox has."""
    with site() as host:
        for applet in host.tell("/usr/bin/busybox", "--list").split():
            if applet not in ("busybox", "ip", "unshare", "modprobe", "useradd", "userdel"):
                host.path(f"/usr/local/sbin/{applet}").symlink_to("/usr/bin/busybox")
        before = host.tree()
        done = host.run("/usr/bin/busybox", "sh", release / "install.sh")
        assert done.returncode == 0, done.stderr
        host.tell("/usr/bin/busybox", "sh", release / "install.sh", "--uninstall")
        assert changes(before, host.tree()) == []
