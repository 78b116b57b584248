"""install.sh --shim-only: what it does to the configuration of a containerd that is there, and how it is undone. Root.

Most go by containerd 1.6 of the host itself, whose `config dump` tells what it makes of the result.
"""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.deploy.release_site import Site, changes, make_release, site

_MAIN = "/etc/containerd/config.toml"
_V1 = '[plugins.cri]\n  sandbox_image = "mine"\n'
_V2 = 'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\n  sandbox_image = "mine"\n'
_WITH_RUNTIMES = (
    _V2 + '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.other]\n  runtime_type = "io.containerd.other.v1"\n'
    '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]\n  runtime_type = "io.containerd.runc.v2"\n'
)
_CRI = "io.containerd.grpc.v1.cri"


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


def _cri(host: Site, name: str = _MAIN) -> dict[str, dict[str, object]]:
    """The runtimes that the host's containerd sees, and its image for sandboxes, as one table."""
    dump = tomllib.loads(host.tell("containerd", "--config", name, "config", "dump"))
    cri = dump["plugins"][_CRI]
    found: dict[str, dict[str, object]] = {"": {"sandbox_image": cri["sandbox_image"]}}
    found.update(cri["containerd"]["runtimes"])
    return found


def _installed(host: Site, release: Path, *options: str) -> str:
    done = host.install(release, "--shim-only", *options)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    "text", [_V1, _V2, _V2.rstrip("\n"), _WITH_RUNTIMES, ""], ids=["1", "2", "cut", "more", "empty"]
)
def test_the_runtime_is_added_and_all_else_stays(host: Site, release: Path, text: str) -> None:
    host.write(_MAIN, text, 0o640)
    before, had = host.tree(), _cri(host)
    said = _installed(host, release)
    assert f"the runtime qemubox goes into {_MAIN}" in said
    has = _cri(host)
    assert has.pop("qemubox")["runtime_type"] == "io.containerd.qemubox.v1"
    assert has == had
    assert host.path(_MAIN).read_text().startswith(text)
    assert host.path(_MAIN).stat().st_mode & 0o777 == 0o640
    assert host.path(f"{_MAIN}.before-qemubox").read_text() == text
    again = host.tree()
    _installed(host, release)
    assert changes(again, host.tree()) == []
    host.install(release, "--uninstall")
    assert changes(before, host.tree()) == []


@pytest.mark.parametrize("name", [_MAIN, "/etc/rancher/config.toml"])
def test_where_there_is_no_configuration_one_is_made_and_removed(host: Site, release: Path, name: str) -> None:
    before = host.tree()
    _installed(host, release, *([] if name == _MAIN else ["--containerd-config", name]))
    assert sorted(_cri(host, name)) == ["", "qemubox", "runc"]
    host.install(release, "--uninstall")
    assert changes(before, host.tree()) == []


def test_the_file_that_counts_is_changed_where_there_are_imports(host: Site, release: Path) -> None:
    # Both have a table of the CRI, and the last one replaces the other; a third has none.
    host.write(_MAIN, _V2.replace("[", 'imports = ["/etc/containerd/conf.d/*.toml", "more.toml"]\n[', 1))
    host.write("/etc/containerd/conf.d/cri.toml", _V2.replace("mine", "theirs"))
    host.write("/etc/containerd/more.toml", "version = 2\noom_score = 1\n")
    before, had = host.tree(), _cri(host)
    assert had[""] == {"sandbox_image": "theirs"}
    said = _installed(host, release)
    assert "goes into /etc/containerd/conf.d/cri.toml" in said
    has = _cri(host)
    assert has.pop("qemubox")["runtime_type"] == "io.containerd.qemubox.v1"
    assert has == had
    host.install(release, "--uninstall")
    assert changes(before, host.tree()) == []


def test_an_import_that_this_containerd_does_not_read_is_left_alone(host: Site, release: Path) -> None:
    # containerd 1.6 takes a relative pattern for one of its working directory; 2.x does not.
    host.write(_MAIN, _V2.replace("[", 'imports = ["conf.d/*.toml"]\n[', 1))
    host.write("/etc/containerd/conf.d/cri.toml", _V2.replace("mine", "theirs"))
    assert f"goes into {_MAIN}" in _installed(host, release)
    assert sorted(_cri(host)) == ["", "qemubox", "runc"]


def test_a_runtime_that_is_there_already_is_left_as_it_is(host: Site, release: Path) -> None:
    mine = _WITH_RUNTIMES.replace("other.v1", "qemubox.v1").replace("runtimes.other", "runtimes.qemubox")
    host.write(_MAIN, mine)
    assert f"{_MAIN} has the runtime already" in _installed(host, release)
    assert host.path(_MAIN).read_text() == mine
    host.install(release, "--uninstall")
    assert host.path(_MAIN).read_text() == mine


def test_a_cri_that_is_switched_off_is_told_nothing(host: Site, release: Path) -> None:
    host.write(_MAIN, 'disabled_plugins = ["cri"]\n')
    assert f"the CRI is switched off in {_MAIN}" in _installed(host, release)
    assert host.path(_MAIN).read_text() == 'disabled_plugins = ["cri"]\n'


def test_what_others_have_changed_since_stays(host: Site, release: Path) -> None:
    host.write(_MAIN, _V2)
    _installed(host, release)
    text = host.path(_MAIN).read_text()
    host.path(_MAIN).write_text("# mine\n" + text + "# mine, too\n")
    done = host.install(release, "--uninstall")
    assert host.path(_MAIN).read_text() == f"# mine\n{_V2}# mine, too\n"
    assert f"was changed by others, too; as it was before qemubox: {_MAIN}.before-qemubox" in done.stdout


def test_the_target_of_a_link_is_changed(host: Site, release: Path) -> None:
    host.write("/var/lib/store/config.toml", _V2)
    host.path("/etc/containerd").mkdir()
    host.path(_MAIN).symlink_to("/var/lib/store/config.toml")
    before = host.tree()
    assert "goes into /var/lib/store/config.toml" in _installed(host, release)
    assert host.path(_MAIN).is_symlink()
    assert "qemubox" in _cri(host)
    host.install(release, "--uninstall")
    assert changes(before, host.tree()) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("version = 2\n[plugins]\n  x = [\n  y = 1\n", "(at line 4, column 3): mend that line"),
        ("version = 2\n[plugins]\n  x = [", "(at end of document): mend line 3"),
        ("version = 9\n", "version = 9: known are 1, 2, 3, 4"),
        ('version = 2\nimports = ["/etc/none.toml"]\n', "/etc/none.toml: No such file or directory"),
        ("version = 2\nimports = 1\n", "imports = 1: must be a list"),
        (f'version = 2\nplugins = {{"{_CRI}" = {{sandbox_image = "x"}}}}\n', "add by hand"),
        (_WITH_RUNTIMES.replace("other]", "qemubox]"), "has another runtime of the name qemubox"),
        (
            "# >>> qemubox: by its install.sh, which takes it out with --uninstall\n",
            "take out what is qemubox's by hand",
        ),
    ],
)
def test_what_cannot_be_changed_is_told_in_one_line_and_nothing_else_is(
    untouched: Site, release: Path, text: str, told: str
) -> None:
    untouched.write(_MAIN, text)
    before = untouched.tree()
    done = untouched.install(release, "--shim-only")
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith(("containerd: ", "install.sh: "))]
    assert told in lines[-2], lines
    assert lines[-1] == "install.sh: the configuration of containerd was not changed, and neither was anything else"
    assert changes(before, untouched.tree()) == []


def test_a_read_only_configuration_is_refused_before_anything_is_changed(host: Site, release: Path) -> None:
    host.write(_MAIN, _V2)
    host.tell("sh", "-c", "mount --bind /etc/containerd /etc/containerd && mount -o remount,bind,ro /etc/containerd")
    before = host.tree()
    done = host.install(release, "--shim-only")
    assert done.returncode == 1
    assert f"{_MAIN} cannot be written to (read-only?)" in done.stderr
    assert changes(before, host.tree()) == []


def test_a_file_that_is_a_mount_is_told_and_all_is_undone(host: Site, release: Path) -> None:
    """As a container's containerd has it: it can be written to, but not replaced."""
    host.write("/var/lib/theirs.toml", _V2)
    host.write(_MAIN, "")
    host.tell("mount", "--bind", "/var/lib/theirs.toml", _MAIN)
    before = host.tree()
    done = host.install(release, "--shim-only")
    assert done.returncode == 1
    assert f"cannot write {_MAIN} (see above)" in done.stderr
    assert changes(before, host.tree()) == []


def test_the_service_s_own_configuration_is_taken_and_it_is_restarted_if_asked_to(host: Site, release: Path) -> None:
    host.with_systemd()
    systemctl = host.path("/usr/local/sbin/systemctl")
    shown = "{ path=/usr/bin/containerd ; argv[]=/usr/bin/containerd --config /etc/mine.toml ; ignore_errors=no }"
    show = f"case $1 in show) echo '{shown}'; exit ;; esac\n"
    systemctl.write_text(systemctl.read_text().replace("#!/bin/sh\n", f"#!/bin/sh\n{show}"))
    host.write("/etc/mine.toml", _V2)
    done = host.install(release, "--shim-only", "--restart-containerd")
    assert "goes into /etc/mine.toml" in done.stderr
    assert "systemctl restart containerd.service" in host.calls()
    assert not host.path("/etc/systemd/system/qemubox-containerd.service").exists()


def test_without_containerd_it_is_said_how_to_have_it(host: Site, release: Path) -> None:
    host.tell("mount", "--bind", "/dev/null", "/usr/bin/containerd")
    before = host.tree()
    done = host.install(release, "--shim-only")
    assert "check: failure: --shim-only: there is no containerd here" in done.stderr
    assert "mend it: apt-get install containerd, or install without --shim-only" in done.stderr
    assert changes(before, host.tree()) == []
    # It may be somewhere else: then nobody can be asked, and runc is named, as 1.x wants it.
    host.write(_MAIN, _V2)
    _installed(host, release, "--skip-checks")
    runtimes = tomllib.loads(host.path(_MAIN).read_text())["plugins"][_CRI]["containerd"]["runtimes"]
    assert runtimes["runc"] == {"runtime_type": "io.containerd.runc.v2"}
