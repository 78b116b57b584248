"""install.sh from a release, on a host of its own: what it puts where, again, anew, and away. Needs root."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.deploy.release_site import PREFIX, ROOT, Site, changes, make_release, seal, site

_CONFIG = "/etc/qemubox/config.toml"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_release(tmp_path_factory.mktemp("release") / "qemubox-1.0-linux-x86_64")


@pytest.fixture
def host() -> Iterator[Site]:
    with site() as made:
        yield made


@pytest.fixture(scope="module")
def untouched() -> Iterator[Site]:
    """For runs that change nothing."""
    with site() as made:
        yield made


def test_the_whole_is_there_and_runs_with_the_runtime_s_python(host: Site, release: Path) -> None:
    done = host.install(release)
    assert done.returncode == 0, done.stderr
    # Not with a configuration of the host's that wants none: that is no error.
    assert host.calls()[-2:] == ["qemubox template build --if-used", "qemubox check"]
    for name in ("containerd-shim-qemubox-v1", "qemubox"):
        first = host.path(PREFIX / "bin" / name).read_text().splitlines()[0]
        assert first == f"#!{PREFIX}/lib/qemubox/runtime/bin/python3 -ISWignore"
    host.tell("/usr/local/bin/qemubox", "gc")
    assert host.calls()[-1] == "qemubox gc"
    assert host.path("/usr/local/share/man/man1/qemubox.1").readlink() == PREFIX / "share/man/man1/qemubox.1"
    assert not host.path("/usr/local/bin/containerd-shim-qemubox-v1").is_symlink()
    assert host.tell("id", "-un", "qemubox") == "qemubox\n"


def test_the_release_s_programs_come_behind_the_host_s(host: Site, release: Path) -> None:
    host.install(release)
    tools = f"{PREFIX}/lib/qemubox/runtime/bin"
    for path in ("/bin", f"/bin:{tools}"):
        assert host.tell("env", f"PATH={path}", "/usr/local/bin/qemubox", "path") == f"/bin:{tools}\n"


def test_the_configuration_names_the_release_s_own_programs(host: Site, release: Path) -> None:
    host.install(release)
    lines = [line for line in host.path(_CONFIG).read_text().splitlines() if line and line[0] not in "#["]
    lib = PREFIX / "lib/qemubox"
    assert lines == [
        f'qemu = "{lib}/runtime/bin/qemu-system-x86_64"',
        f'kernel = "{PREFIX}/share/qemubox/vmlinux"',
        f'image = "{PREFIX}/share/qemubox/guest.erofs"',
        f'daemon = "{lib}/vhost-device-vsock"',
        f'mkfs_erofs = "{lib}/runtime/bin/mkfs.erofs"',
        f'mkfs_ext4 = "{lib}/runtime/bin/mkfs.ext4"',
        f'daemon = "{lib}/runtime/bin/virtiofsd"',
        f'plugin_dirs = ["{lib}/cni"]',
    ]


@pytest.mark.parametrize(("version", "is_taken"), [("7.1.50", False), ("7.2.22", True), ("10.0.2", True)])
def test_shim_only_takes_the_host_s_programs_where_they_will_do(
    host: Site, release: Path, version: str, is_taken: bool
) -> None:
    host.program("qemu-system-x86_64", f'echo "QEMU emulator version {version} (Debian 1:7.2+dfsg)"')
    host.program("mkfs.erofs", 'echo "mkfs.erofs 1.5" >&2')
    host.program("mkfs.ext4", 'echo "mke2fs 1.47.0 (5-Feb-2023)" >&2')
    done = host.install(release, "--shim-only")
    assert done.returncode == 0, done.stderr
    text = host.path(_CONFIG).read_text()
    taken = "/usr/local/sbin" if is_taken else f"{PREFIX}/lib/qemubox/runtime/bin"
    assert f'\nqemu = "{taken}/qemu-system-x86_64"' in text
    assert '\nmkfs_erofs = "/usr/local/sbin/mkfs.erofs"' in text
    assert f'\nplugin_dirs = ["/opt/cni/bin", "/usr/lib/cni", "{PREFIX}/lib/qemubox/cni"]' in text
    assert not host.path(PREFIX / "bin/containerd").exists()
    link = host.path("/usr/local/bin/containerd-shim-qemubox-v1")
    assert link.readlink() == PREFIX / "bin/containerd-shim-qemubox-v1"


def test_a_second_run_changes_nothing(host: Site, release: Path) -> None:
    host.with_systemd()
    host.install(release)
    before = host.tree()
    done = host.install(release)
    assert (done.returncode, changes(before, host.tree())) == (0, [])
    assert "systemctl restart qemubox-containerd.service" not in host.calls()[host.calls().index("qemubox check") :]


def test_nothing_is_left_after_the_uninstallation(host: Site, release: Path) -> None:
    host.with_systemd()
    before = host.tree()
    host.install(release)
    host.write("/var/cache/qemubox/layers/a.erofs", "a layer")
    host.write("/run/qemubox/timeline.jsonl", "{}")
    done = host.install(release, "--uninstall")
    assert (done.returncode, changes(before, host.tree())) == (0, [])


def test_it_is_removed_without_the_archive_too(host: Site, release: Path) -> None:
    before = host.tree()
    host.install(release, "--prefix", "/usr/local/qb")
    uninstaller = "/usr/local/qb/share/qemubox/installer/install.sh"
    assert "there is nothing to install" in host.run("sh", uninstaller).stderr
    host.tell("sh", uninstaller, "--uninstall")
    assert changes(before, host.tree()) == []


def test_what_is_the_user_s_stays_until_it_is_purged(host: Site, release: Path) -> None:
    before = host.tree()
    host.install(release)
    mine = host.path(_CONFIG).read_text().replace("# default_cpus = 1", "default_cpus = 2")
    host.write(_CONFIG, mine)
    host.write("/var/lib/qemubox/containerd/image", "an image")
    host.write("/var/cache/qemubox/build/kernel", "took minutes")
    done = host.install(release, "--uninstall")
    assert f"{_CONFIG} was changed and stays" in done.stdout
    left = ["etc/qemubox", "etc/qemubox/config.toml", "var/cache/qemubox", "var/cache/qemubox/build"]
    left += ["var/cache/qemubox/build/kernel", "var/lib/qemubox", "var/lib/qemubox/containerd"]
    assert changes(before, host.tree()) == [*left, "var/lib/qemubox/containerd/image"]
    host.install(release)
    assert host.path(_CONFIG).read_text() == mine
    host.install(release, "--uninstall", "--purge")
    assert changes(before, host.tree()) == []


def test_an_upgrade_puts_the_new_beside_what_runs_and_removes_what_is_no_more(
    host: Site, release: Path, tmp_path: Path
) -> None:
    python = "tree/lib/qemubox/runtime/bin/python3"
    program = {python: '#!/bin/sh\n# newer\nexec /usr/bin/python3 "$@"\n', "tree/share/qemubox/new": "new\n"}
    newer = make_release(tmp_path / "newer", version="1.1", further=program)
    (newer / "tree/share/man/man1/qemubox.1").unlink()
    seal(newer)
    host.install(release)
    lib = host.path(PREFIX / "lib/qemubox")
    old_runtime, old_venv = (lib / "runtime").readlink(), (lib / "venv").readlink()
    # A process that has a file of the old environment in its memory, as a shim has; the runtime is no longer used. Both
    # stay at first: what has just been started may still look into them.
    with host.process(PREFIX / "lib/qemubox" / old_venv / "module.so"):
        done = host.install(newer)
        assert done.returncode == 0, done.stderr
        assert (lib / "runtime").readlink() != old_runtime
        assert (lib / old_runtime).is_dir()
        host.install(newer)
        assert not (lib / old_runtime).exists()
        assert (lib / old_venv).is_dir()
        assert "end them first" in host.install(newer, "--uninstall").stderr
    assert host.path(PREFIX / "share/qemubox/vmlinux").read_text() == "kernel of 1.1\n"
    assert host.path(PREFIX / "share/qemubox/new").exists()
    assert not host.path("/usr/local/share/man/man1/qemubox.1").is_symlink()
    assert not host.path(PREFIX / "share/man/man1/qemubox.1").exists()
    host.install(newer)
    assert not (lib / old_venv).exists()


def test_a_configuration_of_ours_is_renewed(host: Site, release: Path, tmp_path: Path) -> None:
    newer = make_release(tmp_path / "newer", version="1.1")
    config = newer / "deploy/config.toml"
    config.write_text(config.read_text() + "\n# a new line\n")
    seal(newer)
    host.install(release)
    host.install(newer)
    assert "# a new line" in host.path(_CONFIG).read_text()


def test_running_containers_are_named_and_nothing_is_removed(host: Site, release: Path) -> None:
    host.install(release)
    module = PREFIX / "lib/qemubox" / host.path(PREFIX / "lib/qemubox/venv").readlink() / "module.so"
    words = ["containerd-shim-qemubox-v1", "-namespace", "default", "-address", "/run/c.sock", "-id", "web"]
    with host.process(module, *words):
        before = host.tree()
        done = host.install(release, "--uninstall")
    assert done.returncode == 1
    assert "containers are running (namespace/container): default/web: end them first" in done.stderr
    assert changes(before, host.tree()) == []


@pytest.mark.parametrize("options", [[], ["--shim-only"], ["--uninstall"]])
def test_a_dry_run_tells_and_changes_nothing(host: Site, release: Path, options: list[str]) -> None:
    host.with_systemd()
    host.path("/run/fake/active").mkdir(parents=True)
    if "--uninstall" in options:
        host.install(release)
    before = host.tree()
    told = host.install(release, *options, "--dry-run")
    assert told.returncode == 0, told.stderr
    assert changes(before, host.tree()) == []
    host.install(release, *options)
    named = {
        word.lstrip("/") for line in told.stdout.splitlines() if line.startswith("would ") for word in line.split()
    }
    for name in changes(before, host.tree()):
        above = {str(parent) for parent in Path(name).parents}
        known = named & {name, *above} or any(each.startswith(f"{name}/") for each in named)
        assert known or name.startswith(_UNTOLD), name


def test_a_checkout_s_dry_run_names_what_is_written_outside_of_the_prefix(host: Site) -> None:
    before = host.tree()
    told = host.tell("sh", ROOT / "install.sh", "--dry-run", "--shim-only", "--prefix", "/opt/qemubox")
    assert changes(before, host.tree()) == []
    for would in (
        "write /etc/qemubox/config.toml",
        "write /etc/qemubox/installation",
        "make /var/cache/qemubox",
        "make the link /usr/local/bin/containerd-shim-qemubox-v1 -> /opt/qemubox/bin/containerd-shim-qemubox-v1",
    ):
        assert f"would {would}\n" in told


# Of what a dry run names the whole of: accounts ("the system user"), links of "enable", what stands below PREFIX.
_UNTOLD = (
    "etc/passwd",
    "etc/group",
    "etc/shadow",
    "etc/gshadow",
    "etc/systemd/system/multi-user",
    "usr/share/qemubox/",
)


def test_a_damaged_archive_is_refused(host: Site, tmp_path: Path) -> None:
    damaged = make_release(tmp_path / "damaged")
    (damaged / "tree/share/qemubox/vmlinux").write_text("something else")
    before = host.tree()
    done = host.install(damaged)
    assert done.returncode == 1
    assert "tree/share/qemubox/vmlinux: FAILED" in done.stderr
    assert "the archive is damaged or was changed" in done.stderr
    assert changes(before, host.tree()) == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--prefix"], "--prefix wants a directory"),
        (["--prefix", "here"], "--prefix here: must be an absolute path"),
        (["--prefix", "/a b"], "--prefix /a b: letters, digits and / . _ + - only"),
        (["--prefix", "/"], "--prefix /: letters"),
        (["--prefix", f"/{'a' * 80}"], "is longer than 80 letters"),
        (["--prefix=/usr/../x"], "--prefix /usr/../x"),
        (["--purge"], "--purge: goes with --uninstall only"),
        (["--restart-containerd"], "--restart-containerd: goes with --shim-only only"),
        (["--shim-only", "--containerd-config", "x"], "--containerd-config x: must be an absolute path"),
        (["--what"], "unknown option: --what"),
        (["--uninstall"], "qemubox is not installed in /usr/share/qemubox"),
        (["--uninstall", "--prefix", "/usr"], "qemubox is not installed in /usr"),
    ],
)
def test_bad_options_are_told_in_one_line(untouched: Site, release: Path, options: list[str], told: str) -> None:
    before = untouched.tree()
    done = untouched.install(release, *options)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("install.sh: ")
    assert told in line
    assert changes(before, untouched.tree()) == []


def test_help_names_every_option(release: Path, untouched: Site) -> None:
    text = untouched.tell("sh", release / "install.sh", "--help")
    for option in re.findall(r"^    (--[a-z-]+)[ )|=]", (release / "install.sh").read_text(), re.MULTILINE):
        assert option in text


def test_modes_are_right_whatever_the_archive_was_unpacked_with(host: Site, tmp_path: Path) -> None:
    unpacked = make_release(tmp_path / "unpacked")
    for path in unpacked.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)
    done = host.install(unpacked)
    assert done.returncode == 0, done.stderr
    for name, described in host.tree().items():
        if name.startswith("usr/share/qemubox") and described[0] != "l":
            assert described[4] == described[7] == "r", (name, described)
            assert described[3] == described[6] == described[9], (name, described)


def test_what_is_mounted_below_stops_the_uninstallation(host: Site, release: Path) -> None:
    host.with_systemd()
    host.install(release)
    host.tell("sh", "-c", "mkdir /run/qemubox/mine && mount -t tmpfs tmpfs /run/qemubox/mine")
    before = host.tree()
    done = host.install(release, "--uninstall")
    assert done.returncode == 1
    assert "/run/qemubox/mine is mounted: unmount it first" in done.stderr
    assert changes(before, host.tree()) == []
    assert sorted(path.name for path in host.path("/run/fake/active").iterdir()) == [
        "qemubox-containerd.service",
        "qemubox.service",
    ]


def test_containers_of_other_runtimes_in_its_own_containerd_count_too(host: Site, release: Path) -> None:
    host.install(release)
    shim = ["containerd-shim-runc-v2", "-namespace", "default", "-id", "other"]
    with host.process(Path("/var/tmp/a"), *shim, "-address", "/run/qemubox/containerd.sock"):
        assert "default/other: end them first" in host.install(release, "--uninstall").stderr
