"""The release's archive: it holds what it must, and its programs need nothing of the machine. Needs root.

It is made by deploy/release/build.sh, from the caches where they have it.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Cold caches: kernel and Go take a quarter of an hour on two cores.
BUILD_DEADLINE_S = 2400
RUNTIME = "lib/qemubox/runtime"
PLUGINS = {
    *("bandwidth", "bridge", "firewall", "host-local", "loopback", "macvlan", "portmap", "ptp", "static", "tuning"),
}

pytestmark = pytest.mark.timeout(BUILD_DEADLINE_S + 600)


def run(*command: str | Path, timeout_s: float = 60) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def archive() -> Path:
    printed = run("sh", ROOT / "deploy/release/build.sh", timeout_s=BUILD_DEADLINE_S)
    assert printed.count("\n") == 1
    return Path(printed.strip())


@pytest.fixture(scope="module")
def unpacked(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("release")
    run("tar", "-xzf", archive, "-C", directory, timeout_s=120)
    (only,) = directory.iterdir()
    assert f"{only.name}.tar.gz" == archive.name
    return only


@pytest.fixture(scope="module")
def tree(unpacked: Path) -> Path:
    return unpacked / "tree"


def in_chroot(tree: Path, *command: str) -> str:
    """Runs a program of the tree with nothing in its root but the tree, /proc and a /tmp."""
    root = tree.parent / "root"
    for name in ("proc", "tmp", "tree"):
        (root / name).mkdir(parents=True, exist_ok=True)
    script = 'mount -t proc proc "$0/proc" && mount --bind "$1" "$0/tree" && shift && exec chroot "$0" "$@"'
    return run("unshare", "--mount", "sh", "-c", script, root, tree, *command)


def test_the_checksum_beside_it_is_that_of_the_archive(archive: Path) -> None:
    said, name = Path(f"{archive}.sha256").read_text().split()
    assert name == archive.name
    with archive.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == said


def test_every_file_but_the_sums_is_in_the_sums(unpacked: Path) -> None:
    run("sh", "-c", 'cd "$0" && sha256sum --check --strict --quiet SHA256SUMS', unpacked, timeout_s=120)
    files = {
        str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file() and not path.is_symlink()
    }
    told = {line.split("  ", 1)[1] for line in (unpacked / "SHA256SUMS").read_text().splitlines()}
    assert files - told == {"SHA256SUMS"}
    assert told <= files


def test_it_holds_what_the_installer_takes(unpacked: Path, tree: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (unpacked / "VERSION").read_text() == f"{version}\n"
    for name in ("install.sh", "LICENSE", "README.md", "sbom.spdx.json", "docs/limitations.md", "deploy/config.toml"):
        assert (unpacked / name).is_file(), name
    assert not (unpacked / "deploy/release").exists()
    assert {path.name for path in (tree / "lib/qemubox/cni").iterdir()} == PLUGINS
    for name in (
        "share/qemubox/vmlinux",
        "share/qemubox/guest.erofs",
        "share/man/man8/qemubox.8",
        "share/bash-completion/completions/qemubox",
        "share/zsh/site-functions/_qemubox",
        "share/fish/vendor_completions.d/qemubox.fish",
        "lib/qemubox/site-packages/shim/__pycache__/entry.cpython-313.pyc",
    ):
        assert (tree / name).stat().st_size > 100, name
    for name in ("bin/containerd", "bin/ctr", "lib/qemubox/vhost-device-vsock", "lib/qemubox/demo/busybox"):
        assert os.access(tree / name, os.X_OK), name


def test_links_stay_within_and_others_may_read_and_nobody_else_write(tree: Path) -> None:
    for path in tree.rglob("*"):
        assert path.resolve().is_relative_to(tree), path
        assert path.resolve().exists(), path
        mode = path.stat().st_mode
        assert mode & 0o066 == 0o044, f"{path}: {mode:o}"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("bin/containerd", "--version"), "2.3.4"),
        (("bin/ctr", "--version"), "2.3.4"),
        ((f"{RUNTIME}/bin/qemu-system-x86_64", "--version"), "QEMU emulator version 10.0"),
        ((f"{RUNTIME}/bin/qemu-system-x86_64", "-accel", "help"), "tcg"),
        ((f"{RUNTIME}/bin/qemu-system-x86_64", "-L", "help"), f"/tree/{RUNTIME}/bin/qemu-bundle/usr/share/qemu"),
        ((f"{RUNTIME}/bin/virtiofsd", "--version"), "virtiofsd 1."),
        ((f"{RUNTIME}/bin/mkfs.erofs", "--version"), "erofs-utils"),
        ((f"{RUNTIME}/bin/ip", "link", "show", "lo"), "LOOPBACK"),
        ((f"{RUNTIME}/bin/nft", "--version"), "nftables"),
        ((f"{RUNTIME}/bin/iptables", "-V"), "nf_tables"),
        ((f"{RUNTIME}/bin/ip6tables-save", "-V"), "nf_tables"),
        (("lib/qemubox/demo/busybox", "echo", "hello"), "hello"),
    ],
)
def test_programs_run_where_nothing_else_is(tree: Path, command: tuple[str, ...], said: str) -> None:
    assert said in in_chroot(tree, f"/tree/{command[0]}", *command[1:])


def test_python_runs_where_nothing_else_is(tree: Path) -> None:
    modules = "asyncio, ssl, ctypes, sqlite3, lzma, bz2, uuid, json, zoneinfo"
    program = (
        f"import sys; sys.path.append('/tree/lib/qemubox/site-packages'); import {modules};"
        "import google.protobuf, psutil, structlog, qemu.qmp, opentelemetry.sdk, shim.version;"
        "from google._upb import _message;"  # the compiled one, linked with libstdc++
        "print(sys.prefix, sys.executable, shim.version.VERSION, ctypes.CDLL('libgcc_s.so.1') is not None);"
        "maps = open('/proc/self/maps').read().split();"
        "print(*{w for w in maps if '/' in w and not w.startswith('/tree/')})"
    )
    said = in_chroot(tree, f"/tree/{RUNTIME}/bin/python3", "-IS", "-c", program).splitlines()
    version = (tree.parent / "VERSION").read_text().strip()
    assert said == [f"/tree/{RUNTIME} /tree/{RUNTIME}/bin/python3 {version} True", ""]


def test_a_file_system_is_made_where_nothing_else_is(tree: Path) -> None:
    tmp = tree.parent / "root/tmp"
    tmp.mkdir(parents=True, exist_ok=True)
    with (tmp / "disk").open("wb") as disk:
        disk.truncate(16 << 20)
    in_chroot(tree, f"/tree/{RUNTIME}/bin/mkfs.ext4", "-q", "/tmp/disk")
    assert "has_journal" in run("dumpe2fs", "-h", tmp / "disk")  # as its own mke2fs.conf has it
    (tmp / "source").mkdir()
    (tmp / "source/file").write_text("content")
    in_chroot(tree, f"/tree/{RUNTIME}/bin/mkfs.erofs", "--quiet", "-zlz4hc", "/tmp/image", "/tmp/source")
    assert (tmp / "image").stat().st_size >= 4096


def test_iptables_extensions_are_its_own(tree: Path) -> None:
    """A rule of the kind that CNI's portmap writes, in a network namespace of its own; the kernel is the machine's."""
    rule = "-t nat -A POSTROUTING -m comment --comment mine -m addrtype --src-type LOCAL -j MASQUERADE"
    script = f"/tree/{RUNTIME}/bin/iptables {rule} && /tree/{RUNTIME}/bin/iptables-save -t nat"
    root = tree.parent / "root"
    shutil.copy(tree / "lib/qemubox/demo/busybox", root / "tmp/sh")
    said = run("unshare", "--net", "--mount", "sh", "-c", _CHROOT_SH, root, tree, script)
    assert "--comment mine -m addrtype --src-type LOCAL -j MASQUERADE" in said.replace('"', "")


_CHROOT_SH = 'mount -t proc proc "$0/proc" && mount --bind "$1" "$0/tree" && exec chroot "$0" /tmp/sh -c "$2"'


def test_the_guest_boots_on_its_own_qemu(unpacked: Path, tree: Path) -> None:
    """`qemubox template build`: a machine from start to its first answer, by nothing but the release's programs."""
    places = {name: unpacked.parent / name for name in ("state", "data", "cache")}
    for directory in (unpacked.parent, *unpacked.parent.parents[:-2]):
        directory.chmod(directory.stat().st_mode | 0o011)  # QEMU's user comes through
    config = unpacked.parent / "config.toml"
    config.write_text(
        "[runtime]\n"
        + "".join(f'{name}_dir = "{path}"\n' for name, path in places.items())
        + f'[vm]\nqemu = "{tree}/{RUNTIME}/bin/qemu-system-x86_64"\n'
        + f'kernel = "{tree}/share/qemubox/vmlinux"\nimage = "{tree}/share/qemubox/guest.erofs"\n'
    )
    python = [f"{tree}/{RUNTIME}/bin/python3", "-sSB", "-m", "shim.cli"]
    environment = (f"PYTHONPATH={tree}/lib/qemubox/site-packages", f"QEMUBOX_CONFIG={config}")
    said = run("env", *environment, *python, "template", "build", timeout_s=240)
    assert "QEMU 10.0" in said
    trees = list(places["cache"].rglob("template.json"))
    assert len(trees) == 1


def test_the_list_of_parts_names_what_is_in_it(unpacked: Path) -> None:
    document = json.loads((unpacked / "sbom.spdx.json").read_text())
    packages = {(package["name"], package["comment"]): package for package in document["packages"][1:]}
    for name, where in (
        ("qemu-system-x86", RUNTIME),
        ("libc6", RUNTIME),
        ("libc6", "share/qemubox/guest.erofs"),
        ("crun", "share/qemubox/guest.erofs"),
        ("linux-source-6.12", "share/qemubox/vmlinux"),
        ("protobuf", "lib/qemubox/site-packages"),
        ("github.com/containerd/containerd/v2", "bin"),
        ("github.com/containernetworking/plugins", "lib/qemubox/cni"),
        ("vhost-device-vsock", "lib/qemubox/vhost-device-vsock"),
    ):
        assert packages[name, f"in {where}"]["versionInfo"], name
    hashed = packages["qemu-system-x86", f"in {RUNTIME}"]["checksums"][0]["checksumValue"]
    assert len(bytes.fromhex(hashed)) == 32
