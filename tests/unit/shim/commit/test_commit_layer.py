"""An upper directory becomes a layer: every kind of inode, read back with tarfile and compared. As root."""

import errno
import io
import os
import shutil
import socket
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shim.commit import layer, tree
from shim.commit.tree import Node
from shim.errors import HostError, UnsupportedError

_NS = 10**9
_PATH = "SCHILY.xattr."


@pytest.fixture
def upper(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system with attributes; not on a tmpfs, which has no user.* of every kernel."""
    directory = Path("/var/tmp", f"layer-{os.getpid()}-{tmp_path.name}")
    directory.mkdir()
    yield directory
    subprocess.run(["rm", "-rf", directory], check=True, timeout=60)  # rmtree gives up on deep trees


def _tar(directory: Path, *, overlay: bool = True, left_out: list[str] | None = None) -> bytes:
    told = [] if left_out is None else left_out
    return b"".join(layer.pieces(tree.walk(directory), overlay=overlay, left_out=told.append))


def _read(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:", errors="surrogateescape") as archive:
        members = archive.getmembers()
        assert len({member.name for member in members}) == len(members)
        return {member.name: member for member in members}


def _content(data: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:", errors="surrogateescape") as archive:
        file = archive.extractfile(name)
        assert file is not None
        return file.read()


def test_an_empty_one_is_the_empty_layer_that_everybody_knows(upper: Path) -> None:
    assert _tar(upper) == bytes(1024)


def test_whiteouts_and_opaque_directories(upper: Path) -> None:
    (upper / "dir").mkdir()
    os.setxattr(upper / "dir", "trusted.overlay.opaque", b"y")
    os.mknod(upper / "dir/gone", stat.S_IFCHR, os.makedev(0, 0))
    os.mknod(upper / "gone", stat.S_IFCHR, os.makedev(0, 0))
    (upper / "not").mkdir()
    os.setxattr(upper / "not", "trusted.overlay.opaque", b"x")
    found = _read(_tar(upper))
    whiteouts = {"dir/.wh..wh..opq", "dir/.wh.gone", ".wh.gone"}
    assert set(found) == {"dir", "not"} | whiteouts
    assert all(found[name].isreg() and found[name].size == 0 for name in whiteouts)
    assert not any(header.startswith(_PATH) for info in found.values() for header in info.pax_headers)


def test_what_a_rootless_container_in_it_has_hidden_is_its_own(upper: Path) -> None:
    """Of snapshots that are mounted with `userxattr` there are no layers."""
    (upper / "rootless").mkdir()
    for name in ("opaque", "redirect"):
        os.setxattr(upper / "rootless", f"user.overlay.{name}", b"y")
    found = _read(_tar(upper))
    assert [*found] == ["rootless"]
    headers = found["rootless"].pax_headers
    assert {name: headers[name] for name in headers if name.startswith(_PATH)} == {
        f"{_PATH}user.overlay.opaque": "y",
        f"{_PATH}user.overlay.redirect": "y",
    }


def test_a_file_that_cannot_be_opened_is_named(upper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Node) -> int:
        raise OSError(errno.EIO, "Input/output error", "/proc/self/fd/7")

    (upper / "bad").write_text("x")
    monkeypatch.setattr(Node, "open", refuse)
    with pytest.raises(HostError, match=r"^/bad: Input/output error"):
        _tar(upper)


def test_a_plain_directory_has_no_whiteouts(upper: Path) -> None:
    os.mknod(upper / "device", stat.S_IFCHR, os.makedev(0, 0))
    info = _read(_tar(upper, overlay=False))["device"]
    assert info.ischr()
    assert (info.devmajor, info.devminor) == (0, 0)


def test_all_kinds(upper: Path) -> None:
    (upper / "file").write_bytes(b"x" * 1000)
    os.chown(upper / "file", 70000, 4_000_000_000)
    os.chmod(upper / "file", 0o6755)
    os.link(upper / "file", upper / "other")
    os.symlink("a" * 300, upper / "link")
    os.lchown(upper / "link", 1, 2)
    os.mkfifo(upper / "pipe", 0o600)
    os.mknod(upper / "block", stat.S_IFBLK | 0o660, os.makedev(259, 700000))
    (upper / "dir").mkdir(mode=0o700)
    os.chmod(upper / "dir", 0o1777)
    data = _tar(upper)
    found = _read(data)
    assert (found["file"].uid, found["file"].gid, found["file"].mode) == (70000, 4_000_000_000, 0o6755)
    assert _content(data, "file") == b"x" * 1000
    assert found["other"].islnk()
    assert found["other"].linkname == "file"
    assert found["link"].linkname == "a" * 300
    assert (found["link"].uid, found["link"].gid) == (1, 2)
    assert found["pipe"].isfifo()
    assert found["block"].isblk()
    assert (found["block"].devmajor, found["block"].devminor) == (259, 700000)
    assert found["dir"].isdir()
    assert found["dir"].mode == 0o1777


def test_attributes_that_are_the_file_s_own(upper: Path) -> None:
    file = upper / "file"
    file.touch()
    binary = bytes(range(256))
    os.setxattr(file, "user.binary", binary)
    os.setxattr(file, "user.ünï", "ö".encode())
    os.setxattr(file, "trusted.mine", b"")
    os.setxattr(file, "trusted.overlay.origin", b"x")
    os.setxattr(file, "security.capability", bytes.fromhex("0100000200000000000000000000000000000000"))
    os.setxattr(file, "security.label", b"the host's")
    headers = _read(_tar(upper))["file"].pax_headers
    kept = {name.removeprefix(_PATH): value for name, value in headers.items() if name.startswith(_PATH)}
    assert set(kept) == {"user.binary", "user.ünï", "trusted.mine", "security.capability"}
    assert kept["user.binary"].encode("utf-8", "surrogateescape") == binary


@pytest.mark.parametrize(
    "ns", [0, 1, 1_700_000_000_123_456_789, 1_700_000_000 * _NS, -1, -1_500_000_000, 2**33 * _NS + 1]
)
def test_times_to_the_nanosecond(upper: Path, ns: int) -> None:
    file = upper / "file"
    file.touch()
    os.utime(file, ns=(ns, ns))
    kept = file.stat().st_mtime_ns
    info = _read(_tar(upper))["file"]
    said = info.pax_headers.get("mtime", str(int(info.mtime)))
    whole, _, fraction = said.lstrip("-").partition(".")
    total = int(whole) * _NS + int((fraction or "0").ljust(9, "0"))
    assert (-total if said.startswith("-") else total) == kept


def test_names_of_any_bytes(upper: Path) -> None:
    names = [b"caf\xe9", "ü".encode(), b"new\nline", b"a" * 255, b" ", b"-"]
    for name in names:
        Path(os.fsdecode(os.fsencode(upper) + b"/" + name)).write_bytes(name)
    data = _tar(upper)
    found = _read(data)
    assert {os.fsencode(name) for name in found} == set(names)
    for name in names:
        assert _content(data, os.fsdecode(name)) == name


def test_holes_are_zeros_and_sizes_are_whole(upper: Path) -> None:
    with open(upper / "sparse", "wb") as file:
        file.truncate(3 << 20)
        file.seek(1 << 20)
        file.write(b"data")
    data = _tar(upper)
    assert _content(data, "sparse") == bytes(1 << 20) + b"data" + bytes((2 << 20) - 4)


def test_sockets_are_left_out_and_told(upper: Path) -> None:
    (upper / "dir").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(upper / "dir/socket"))
        left_out: list[str] = []
        assert set(_read(_tar(upper, left_out=left_out))) == {"dir"}
    assert left_out == ["dir/socket"]


@pytest.mark.parametrize("name", [".wh.name", ".wh..wh..opq", ".wh."])
def test_a_name_that_would_be_a_whiteout_is_refused(upper: Path, name: str) -> None:
    (upper / name).touch()
    with pytest.raises(UnsupportedError, match=r"begins with \.wh\."):
        _tar(upper)


@pytest.mark.parametrize("attribute", ["user.a=b", "user.\udce9"])
def test_an_attribute_s_name_that_a_tar_cannot_hold_is_refused(upper: Path, attribute: str) -> None:
    (upper / "file").touch()
    os.setxattr(upper / "file", attribute, b"")
    with pytest.raises(UnsupportedError, match="/file"):
        _tar(upper)


@pytest.mark.parametrize("attribute", ["trusted.overlay.redirect", "trusted.overlay.metacopy"])
def test_content_that_is_elsewhere_is_refused(upper: Path, attribute: str) -> None:
    (upper / "moved").mkdir()
    os.setxattr(upper / "moved", attribute, b"/elsewhere")
    with pytest.raises(UnsupportedError, match="/moved"):
        _tar(upper)


def test_a_link_out_of_it_is_never_followed(upper: Path) -> None:
    outside = upper.with_name(f"{upper.name}-outside")
    outside.mkdir()
    try:
        (outside / "secret").write_text("secret")
        (upper / "dir").symlink_to(outside)
        data = _tar(upper)
        assert set(_read(data)) == {"dir"}
        assert b"secret" not in data
    finally:
        shutil.rmtree(outside)


def test_what_is_swapped_for_a_link_while_it_is_read_is_what_it_was(upper: Path) -> None:
    """The node is the inode that its name meant when it was opened."""
    (upper / "dir").mkdir()
    (upper / "dir/file").write_text("inside")
    nodes = tree.walk(upper)
    assert next(nodes).path == b"dir"
    (upper / "dir").rename(upper / "moved")
    (upper / "dir").symlink_to("/etc")
    assert [node.path for node in nodes] == [b"dir/file"]


def test_a_file_that_shrinks_is_an_error(upper: Path) -> None:
    (upper / "file").write_bytes(b"x" * (3 << 20))
    made = layer.pieces(tree.walk(upper), overlay=True, left_out=print)
    next(made)
    next(made)
    os.truncate(upper / "file", 10)
    with pytest.raises(HostError, match="became shorter"):
        list(made)


def test_a_deep_tree(upper: Path) -> None:
    here = os.open(upper, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert len(_read(_tar(upper))) == 1500


def test_one_that_is_too_deep_is_refused(upper: Path) -> None:
    here = os.open(upper, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=here)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    with pytest.raises(UnsupportedError, match="has a path of"):
        _tar(upper)


def test_the_same_tree_gives_the_same_bytes(upper: Path) -> None:
    for name in ("b", "a", "c"):
        (upper / name).write_text(name)
    assert _tar(upper) == _tar(upper)
    assert list(_read(_tar(upper))) == ["a", "b", "c"]


def test_no_directory_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="nowhere"):
        _tar(tmp_path / "nowhere")


_NAMES = st.binary(min_size=1, max_size=20).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..") and not name.startswith(b".wh.")
)
_TREES = st.recursive(
    st.binary(max_size=2000), lambda below: st.dictionaries(_NAMES, below, max_size=4), max_leaves=12
).filter(lambda made: isinstance(made, dict))
_Tree = bytes | dict[bytes, "_Tree"]


def _make(directory: bytes, made: "dict[bytes, _Tree]") -> None:
    for name, below in made.items():
        path = directory + b"/" + name
        if isinstance(below, bytes):
            with open(path, "wb") as file:
                file.write(below)
        else:
            os.mkdir(path)
            _make(path, below)


def _flat(made: "dict[bytes, _Tree]", above: bytes = b"") -> dict[bytes, bytes | None]:
    result: dict[bytes, bytes | None] = {}
    for name, below in made.items():
        result[above + name] = below if isinstance(below, bytes) else None
        if not isinstance(below, bytes):
            result |= _flat(below, above + name + b"/")
    return result


@settings(suppress_health_check=[*HealthCheck], deadline=None, max_examples=40)
@given(made=_TREES)
def test_any_tree_comes_back(upper: Path, made: "dict[bytes, _Tree]") -> None:
    shutil.rmtree(upper)
    upper.mkdir()
    _make(os.fsencode(upper), made)
    data = _tar(upper)
    found = {os.fsencode(name): None if info.isdir() else _content(data, name) for name, info in _read(data).items()}
    assert found == _flat(made)
