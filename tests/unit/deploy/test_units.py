"""The systemd units as install.sh installs them: understood, and nothing in them keeps shims from being forked."""

import subprocess
from pathlib import Path

import pytest

from shim.cli.tree import parser

_ROOT = Path(__file__).parents[3]
_UNITS = sorted((_ROOT / "deploy/systemd").glob("*.service"))
# What gives a service a place of its own, where no shim of containerd's could be forked (shim/warm/caller.py).
_CONFINING = (
    "Protect",
    "Private",
    "Restrict",
    "Capability",
    "Ambient",
    "SystemCall",
    "NoNewPrivileges",
    "RootDirectory",
)


def _installed(unit: Path, prefix: Path) -> str:
    return unit.read_text().replace("@PREFIX@", str(prefix))


def _sections(text: str) -> dict[str, dict[str, str]]:
    """A unit file's sections and keys (systemd.syntax(7)); each key once."""
    found: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        if line.startswith("[") and line.endswith("]"):
            section = found.setdefault(line[1:-1], {})
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert equals, line
            assert key not in section, line
            section[key] = value
    return found


def test_all_are_there_and_installed() -> None:
    names = ["qemubox-containerd.service", "qemubox-gc.service", "qemubox-template.service", "qemubox.service"]
    assert [unit.name for unit in _UNITS] == names
    lines = (_ROOT / "deploy/install/systemd.sh").read_text().splitlines()
    listed = [line.partition("=")[2] for line in lines if line.startswith(("units=", "own_units="))]
    assert sorted(name for line in listed for name in line.strip('"').split()) == names


@pytest.mark.parametrize("unit", _UNITS, ids=lambda unit: unit.name)
def test_a_unit_calls_what_there_is(unit: Path, tmp_path: Path) -> None:
    sections = _sections(_installed(unit, tmp_path))
    assert sections.keys() == {"Unit", "Service", "Install"}
    program, *words = sections["Service"]["ExecStart"].split()
    if unit.name == "qemubox-containerd.service":
        assert [program, *words] == [f"{tmp_path}/bin/containerd", "--config", "/etc/qemubox/containerd.toml"]
        return
    assert program == f"{tmp_path}/bin/qemubox"
    parser("/").parse_args(words)  # exits where it is no command of ours
    assert "@" not in _installed(unit, tmp_path)


@pytest.mark.parametrize("unit", _UNITS, ids=lambda unit: unit.name)
def test_systemd_understands_it(unit: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("qemubox", "containerd"):
        program = tmp_path / "bin" / name
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    installed = tmp_path / unit.name
    installed.write_text(_installed(unit, tmp_path))
    done = subprocess.run(
        ["systemd-analyze", "verify", installed], capture_output=True, text=True, check=False, timeout=50
    )
    assert (done.returncode, [line for line in done.stderr.splitlines() if unit.name in line]) == (0, [])


@pytest.mark.parametrize("name", ["qemubox.service", "qemubox-containerd.service"])
def test_a_service_leaves_its_children_alone_and_is_where_the_other_is(name: str) -> None:
    service = _sections((_ROOT / "deploy/systemd" / name).read_text())["Service"]
    assert service["Delegate"] == "yes"
    assert service["KillMode"] == "process"
    assert service["OOMPolicy"] == "continue"
    assert service["Type"] == "notify"
    assert [key for key in service if key.startswith(_CONFINING)] == []


@pytest.mark.parametrize(("name", "longest_s"), [("qemubox-template.service", 60), ("qemubox.service", 20)])
def test_no_machine_starts_before_kvm_is_there(name: str, longest_s: int) -> None:
    """Early in a boot udev has not loaded its module yet: seen on Debian 13 after a reboot, tests/kvm."""
    service = _sections((_ROOT / "deploy/systemd" / name).read_text())["Service"]
    assert service["ExecStartPre"].split() == ["-udevadm", "settle", f"--timeout={longest_s}"]


def test_whoever_starts_containers_at_boot_waits_for_the_service() -> None:
    unit = _sections((_ROOT / "deploy/systemd/qemubox.service").read_text())["Unit"]
    assert unit["Before"].split() == ["containerd.service", "docker.service", "qemubox-containerd.service"]
