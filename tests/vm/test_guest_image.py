"""The guest's root image as it is built: the same bytes each time, small, and nothing in it that is not used."""

import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.flavours import CHECKOUT
from harness.qemubox import built_parts

LIMIT_MIB = 20
BUILD = CHECKOUT / "initrd/build.sh"


@pytest.fixture(scope="module")
def work() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="qemubox-image-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def image() -> Path:
    return Path(built_parts()[1])


@pytest.fixture(scope="module")
def root(work: Path, image: Path) -> Path:
    """What is in it, unpacked."""
    subprocess.run(["fsck.erofs", f"--extract={work}/root", image], check=True, capture_output=True, timeout=60)
    return work / "root"


def build_again(cache: Path) -> Path:
    """Builds it in a cache of its own, from the base that is there."""
    base = subprocess.run([BUILD.with_name("base.sh")], check=True, capture_output=True, text=True, timeout=60)
    (cache / "initrd").mkdir(parents=True)
    (cache / "initrd" / Path(base.stdout.strip()).name).symlink_to(base.stdout.strip())
    environment = os.environ | {"QEMUBOX_BUILD_CACHE": str(cache)}
    built = subprocess.run([BUILD], env=environment, check=True, capture_output=True, text=True, timeout=60)
    return Path(built.stdout.strip())


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]


def test_another_build_gives_the_same_bytes(work: Path, image: Path) -> None:
    again = build_again(work / "cache")
    assert again != image
    assert again.read_bytes() == image.read_bytes()


def test_it_is_small(image: Path) -> None:
    assert image.stat().st_size <= LIMIT_MIB << 20


def test_it_has_the_directories_that_are_mounted_on(root: Path) -> None:
    for name in ("dev", "etc", "mnt", "proc", "run", "sys", "tmp", "var"):
        assert stat.S_ISDIR((root / name).lstat().st_mode), name


def test_every_link_leads_somewhere(root: Path) -> None:
    for link in (path for path in root.rglob("*") if path.is_symlink()):
        target = Path(os.readlink(link))
        inside = root / target.relative_to("/") if target.is_absolute() else link.parent / target
        assert inside.exists() or target.parts[1] == "proc", f"{link} -> {target}"


def test_it_holds_nothing_that_would_make_two_machines_the_same(root: Path) -> None:
    """No machine id, no host keys, no random seed (trap 9): whatever has one brings it along."""
    names = {path.name for path in root.rglob("*")}
    assert not names & {"machine-id", "random-seed", "resolv.conf", "hostname"}
    assert not [name for name in names if name.startswith("ssh_host_")]


def test_there_is_no_program_but_python_and_crun(root: Path) -> None:
    assert sorted(path.name for path in (root / "usr/bin").iterdir()) == ["crun", "python3.13"]
    programs = [path for path in files(root) if path.stat().st_mode & 0o111]
    assert {path.name for path in programs if ".so" not in path.name} == {"crun", "python3.13", "init"}


def test_nothing_is_there_for_a_users_privilege(root: Path) -> None:
    assert [path for path in root.rglob("*") if not path.is_symlink() and path.lstat().st_mode & 0o7022] == []


def test_every_module_is_compiled_and_only_ours_have_source(root: Path) -> None:
    sources = {path.relative_to(root / "usr/lib/qemubox") for path in root.rglob("*.py")}
    assert {path.parts[0] for path in sources} == {"api", "archive", "netlink", "ttrpc", "vminitd"}
    for source in sources:
        assert (root / "usr/lib/qemubox" / source.parent / "__pycache__" / f"{source.stem}.cpython-313.pyc").is_file()
    assert not [path for path in root.rglob("*") if path.name in ("test", "tests", "unittest", "idlelib", "ensurepip")]


def test_the_manifest_names_every_version_with_its_hash(root: Path) -> None:
    lines = (root / "usr/share/qemubox/manifest").read_text().splitlines()
    assert all(re.fullmatch(r"\S+( \S+)? [0-9a-f]{64}", line) for line in lines)
    assert {"crun", "libc6", "python3.13-minimal"} <= {line.split()[0] for line in lines}
    assert any(line.startswith("protobuf-") for line in lines)


def test_no_path_of_this_machine_is_in_it(root: Path) -> None:
    ours = re.compile(re.escape(str(CHECKOUT)).encode() + rb"/|/var/cache/qemubox/build")
    assert [path for path in files(root) if ours.search(path.read_bytes())] == []
