"""Records as tar, read by the system's own tar and by Python's, and tar of all kinds as records."""

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from archive.pack import pack
from archive.records import Entry, Kind, read
from archive.unpack import ALL, unpack
from harness.copying import tree
from shim.copy.tar import from_tar, to_tar
from shim.errors import HostError, SpecError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "d" / ("long" * 60)).mkdir(parents=True)
    (root / "d/f").write_bytes(os.urandom(100_000))
    os.link(root / "d/f", root / "d/g")
    os.symlink("t/" * 150, root / "l")
    os.mkfifo(root / "p", 0o600)
    os.mknod(root / "null", 0o20644, os.makedev(1, 3))
    (root / "odd \udcff\n").write_text("")
    with (root / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 20)
    os.chown(root / "d/f", 3_000_000, 4_000_000)
    os.setxattr(root / "d/f", "user.x", b"\0\xff=\n")
    for number, path in enumerate(root.rglob("*")):
        os.utime(path, ns=(0, number * 1_111_111_111_111), follow_symlinks=False)
    os.utime(root / "p", ns=(0, -1_500_000_000))
    return root


def _packed(path: Path) -> io.BytesIO:
    place = os.open(path, os.O_PATH)
    try:
        stream = io.BytesIO()
        pack(place, stream.write, print)
    finally:
        os.close(place)
    stream.seek(0)
    return stream


def _as_tar(path: Path, base: bytes = b"base") -> bytes:
    out = io.BytesIO()
    to_tar(read(_packed(path).read), out.write, base)
    return out.getvalue()


def _unpacked(archive: bytes, directory: Path) -> None:
    stream = io.BytesIO()
    from_tar(io.BytesIO(archive), stream.write, owners=True)
    stream.seek(0)
    directory.mkdir()
    place = os.open(directory, os.O_PATH)
    try:
        unpack(read(stream.read), place, b"", ALL, print)
    finally:
        os.close(place)


def test_there_and_back(source: Path, tmp_path: Path) -> None:
    archive = _as_tar(source)
    assert len(archive) % tarfile.RECORDSIZE == 0
    _unpacked(archive, tmp_path / "back")
    assert tree(tmp_path / "back/base") == tree(source)


def test_the_systems_tar_reads_it(source: Path, tmp_path: Path) -> None:
    (tmp_path / "gnu").mkdir()
    command = ["tar", "-x", "--xattrs", "--xattrs-include=user.*", "-C", str(tmp_path / "gnu")]
    subprocess.run(command, input=_as_tar(source), check=True, timeout=30)
    assert tree(tmp_path / "gnu/base") == tree(source)


def test_who_knows_nothing_of_pax_sees_the_second(source: Path) -> None:
    """As busybox: the field of the plain header."""
    with tarfile.open(fileobj=io.BytesIO(_as_tar(source))) as tar:
        offsets = {member.name: member.offset_data for member in tar}
    archive = _as_tar(source)
    at = offsets["base/d/f"] - tarfile.BLOCKSIZE
    assert int(archive[at + 136 : at + 147], 8) == int((source / "d/f").stat().st_mtime)


@pytest.mark.parametrize("form", ["ustar", "gnu", "pax", "v7"])
@pytest.mark.parametrize("compression", ["", "-z"])
def test_tar_of_any_kind_is_read(tmp_path: Path, form: str, compression: str) -> None:
    root = tmp_path / "source"
    (root / "d").mkdir(parents=True)
    (root / "d/f").write_bytes(os.urandom(100_000))
    os.symlink("f", root / "d/l")
    os.link(root / "d/f", root / "again")
    for path in (root, *root.rglob("*")):
        os.utime(path, (0, 1_000_000_000), follow_symlinks=False)
    words = ["tar", "-c", f"--format={form}", *([compression] if compression else []), "-C", str(root), "."]
    _unpacked(subprocess.run(words, capture_output=True, check=True, timeout=30).stdout, tmp_path / "back")
    os.utime(tmp_path / "back", (0, 1_000_000_000))
    assert tree(tmp_path / "back") == tree(root)


def test_sparse_files_of_gnu_tar(tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(b"in the middle")
    words = ["tar", "-cS", "-C", str(tmp_path), "f"]
    _unpacked(subprocess.run(words, capture_output=True, check=True, timeout=30).stdout, tmp_path / "back")
    assert (tmp_path / "back/f").read_bytes() == (tmp_path / "f").read_bytes()


def _one(name: str, **facts: object) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        for key, value in facts.items():
            setattr(info, key, value)
        tar.addfile(info)
    return out.getvalue()


def test_absolute_paths_begin_at_the_destination() -> None:
    stream = io.BytesIO()
    from_tar(io.BytesIO(_one("/etc//./x", uid=5)), stream.write, owners=False)
    stream.seek(0)
    assert [*read(stream.read)][1:] == [Entry(b"etc/x", Kind.FILE, 0o644)]


@pytest.mark.parametrize("archive", [_one("../x"), _one("a/../../x"), _one("x", type=tarfile.LNKTYPE, linkname="../y")])
def test_paths_that_lead_out_are_refused(archive: bytes) -> None:
    with pytest.raises(SpecError, match="not unpacked"):
        from_tar(io.BytesIO(archive), io.BytesIO().write, owners=True)


@pytest.mark.parametrize("archive", [b"", b"x" * 1000, _one("x")[:100], _one("x", type=b"?"), _one("x", size=0)[:400]])
def test_what_is_no_archive(archive: bytes) -> None:
    with pytest.raises((HostError, SpecError)):
        from_tar(io.BytesIO(archive), io.BytesIO().write, owners=True)
