"""deploy/suite.sh with an apt of our own in its PATH: what it asks of the real one, what it keeps, what it says."""

import os
import subprocess
from pathlib import Path

import pytest

SUITE = Path(__file__).parents[3] / "deploy/suite.sh"
MIRROR = "http://mirror.example/debian"
SECURITY = "http://mirror.example/security"

# Logs its arguments; has indexes of the host's release, and any package but "nosuch".
APT_GET = """#!/bin/sh
echo "$*" >>"$LOG"
action=$1
shift
case $action in
    indextargets) cat "$INDEXES" ;;
    update) [ ! -e "$INDEXES.broken" ] || exit 1 ;;
    install)
        for word in "$@"; do
            case $word in Dir::Cache::Archives=*) archives=${word#*=} ;; esac
        done
        : >"$archives/lock"
        echo dep >"$archives/libdep_1.0_amd64.deb"
        cd "$archives"
        set -- crun
        ;;
esac
case $action in
    install | download)
        for word in "$@"; do
            case $word in
                -* | *=*) ;;
                nosuch) exit 100 ;;
                *) echo "$word" >"${word}_1.0_amd64.deb" ;;
            esac
        done
        ;;
esac
"""


class Host:
    """A machine with such an apt."""

    def __init__(self, root: Path) -> None:
        self.cache = root / "cache"
        self.log = root / "log"
        self.indexes = root / "indexes"
        self.programs = root / "bin"
        self.programs.mkdir()
        self.log.touch()
        self.has(f"{MIRROR} {self.release()} {self.release()} main\n")
        self.program("apt-get", APT_GET)
        self.program("dpkg-deb", "#!/bin/sh\necho 1.0\n")
        self.program("dpkg", "#!/bin/sh\necho amd64\n")

    def release(self) -> str:
        return subprocess.run(
            ["sh", "-c", '. /etc/os-release && echo "$VERSION_CODENAME"'], check=True, capture_output=True, text=True
        ).stdout.strip()

    def has(self, indexes: str) -> None:
        self.indexes.write_text(indexes)

    def program(self, name: str, text: str) -> None:
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", SUITE, *arguments],
            env={
                "PATH": f"{self.programs}:{os.environ['PATH']}",
                "QEMUBOX_BUILD_CACHE": str(self.cache),
                "LOG": str(self.log),
                "INDEXES": str(self.indexes),
            },
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_the_packages_and_their_versions_are_in_the_printed_directory(host: Host) -> None:
    result = host.run("sid", "crun", "libc6")
    assert result.returncode == 0, result.stderr
    directory = Path(result.stdout.strip())
    assert directory.is_relative_to(host.cache)
    assert {path.name for path in directory.iterdir()} == {"crun_1.0_amd64.deb", "libc6_1.0_amd64.deb", "versions"}
    lines = [line.split() for line in (directory / "versions").read_text().splitlines()]
    assert [line[:2] for line in lines] == [["crun", "1.0"], ["libc6", "1.0"]]
    assert all(len(line[2]) == 64 for line in lines)


def test_with_dependencies_all_that_apt_would_install_is_there(host: Host) -> None:
    result = host.run("--with-dependencies", "sid", "crun")
    assert result.returncode == 0, result.stderr
    directory = Path(result.stdout.strip())
    assert {path.name for path in directory.iterdir()} == {"crun_1.0_amd64.deb", "libdep_1.0_amd64.deb", "versions"}
    names = [line.split()[0] for line in (directory / "versions").read_text().splitlines()]
    assert names == ["crun", "libdep"]
    (call,) = [call for call in host.calls() if call.startswith("install ")]
    for option in ("--download-only", "--no-install-recommends", f"-o Dir::State::Status={host.cache}/"):
        assert option in call
    assert result.stdout != host.run("sid", "crun").stdout


def test_a_second_call_needs_no_apt(host: Host) -> None:
    first = host.run("sid", "crun")
    calls = len(host.calls())
    assert host.run("sid", "crun").stdout == first.stdout
    assert len(host.calls()) == calls


def test_suite_and_names_tell_apart(host: Host) -> None:
    answers = {host.run("sid", "a").stdout, host.run("sid", "b").stdout, host.run("forky", "a").stdout}
    assert len(answers) == 3


def test_the_hosts_apt_is_read_and_never_written(host: Host) -> None:
    host.run("sid", "crun")
    changing = [call for call in host.calls() if not call.startswith("indextargets")]
    assert changing
    for call in changing:
        for option in ("Dir::State", "Dir::State::Lists", "Dir::State::Status", "Dir::Cache", "Dir::Etc::SourceList"):
            assert f"-o {option}={host.cache}/" in call, option
        assert "-o Dir::Etc::SourceParts=/dev/null" in call


def test_the_suite_comes_from_the_hosts_mirror_and_is_verified(host: Host) -> None:
    release = host.release()
    host.has(
        "http://other.example/apt stable stable contrib\nhttp://vendor.example/x nodistro nodistro main\n"
        f"{MIRROR} oldstable {release} main\n{SECURITY} {release}-security {release}-security main\n"
    )
    assert host.run("sid", "crun").returncode == 0
    sources = (host.cache / "debs/apt/sid-amd64/sources.list").read_text().splitlines()
    assert [line.split("] ")[1] for line in sources] == [f"{MIRROR} sid main", f"{SECURITY} sid-security main"]
    assert all("signed-by=/usr/share/keyrings/debian-archive-keyring.gpg" in line for line in sources)


def test_a_host_without_a_mirror_of_its_release_is_told_so(host: Host) -> None:
    host.has("http://vendor.example/x nodistro nodistro main\n")
    result = host.run("sid", "crun")
    assert (result.returncode, result.stdout) == (1, "")
    assert f"no mirror of Debian {host.release()}" in result.stderr


def test_a_package_that_is_not_there_is_named_and_nothing_is_kept(host: Host) -> None:
    result = host.run("sid", "crun", "nosuch")
    assert (result.returncode, result.stdout) == (1, "")
    assert "cannot download from sid: crun nosuch" in result.stderr
    assert list(host.cache.rglob("versions")) == []


def test_a_suite_that_cannot_be_read_is_named(host: Host) -> None:
    Path(f"{host.indexes}.broken").touch()
    result = host.run("bogus", "crun")
    assert (result.returncode, result.stdout) == (1, "")
    assert "cannot read the suite bogus" in result.stderr


def test_a_killed_download_is_not_taken_for_a_result(host: Host) -> None:
    (host.cache / "debs/work").mkdir(parents=True)
    (host.cache / "debs/work/libc6_0.1_amd64.deb").touch()
    directory = Path(host.run("sid", "crun").stdout.strip())
    assert {path.name for path in directory.iterdir()} == {"crun_1.0_amd64.deb", "versions"}


def test_a_call_without_packages_is_refused(host: Host) -> None:
    result = host.run("sid")
    assert (result.returncode, result.stdout) == (2, "")
    assert "usage:" in result.stderr
