"""mkfs.erofs for real: what goes in comes out, seen through the kernel."""

import asyncio
import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shim.errors import HostError, MissingPartError, ResourceError, UnsupportedError
from shim.rootfs import erofs, superblock
from shim.rootfs.survey import survey


class Mounted(Protocol):
    """The fixture of that name, in conftest.py."""

    def __call__(self, source: Path, fstype: str = ..., options: str = ...) -> AbstractContextManager[Path]: ...


Describe = Callable[[Path], dict[bytes, tuple[object, ...]]]

MKFS = erofs.tool("mkfs.erofs", 30)


@pytest.mark.parametrize("chunks", [False, True])
async def test_every_inode_is_kept(
    chunks: bool, layer: Path, tmp_path: Path, mounted: Mounted, describe: Describe
) -> None:
    image = tmp_path / "image"
    if not chunks:
        for path in layer.glob("*hole*"):
            path.unlink()
    await erofs.convert(MKFS, layer, image)
    assert (image.stat().st_size < 4 << 20, survey(layer).sparse_bytes > 0) == (True, chunks)
    with mounted(image) as root:
        seen, kept = describe(root), describe(layer)
        assert seen == kept
        assert seen[b"bin"][4] == -5_000_000_001
        assert (seen[b"hard disk"][6], seen[b"hard link"][6]) == (b"disk", b"hard link")
        assert "system.posix_acl_default" in str(seen[b"acl"][8])


async def test_holes_take_no_room(tmp_path: Path, mounted: Mounted) -> None:
    tree, image = tmp_path / "tree", tmp_path / "image"
    tree.mkdir()
    with (tree / "sparse").open("wb") as file:
        file.truncate(64 << 20)
        os.pwrite(file.fileno(), b"data", 50_000_000)
    await erofs.convert(MKFS, tree, image)
    assert image.stat().st_blocks * 512 < 1 << 20
    with mounted(image) as root, (root / "sparse").open("rb") as seen, (tree / "sparse").open("rb") as kept:
        assert hashlib.file_digest(seen, "sha256").digest() == hashlib.file_digest(kept, "sha256").digest()


def test_chunks_grow_with_the_file() -> None:
    assert [erofs.chunk_bytes(size) >> 10 for size in (1, 64 << 30, (64 << 30) + 1, 1 << 40)] == [64, 64, 128, 1024]


async def test_the_image_passes_its_own_check(layer: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    await erofs.convert(MKFS, layer, image)
    await _run("fsck.erofs", "--extract", str(image))
    assert image.stat().st_size % 4096 == 0


async def test_equal_trees_made_at_other_times_in_another_order_give_equal_images(layer: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    await _run("cp", "-a", str(layer), str(copy))
    for path in sorted(copy.glob("many/*"), reverse=True):
        aside = tmp_path / "aside"
        path.rename(aside)
        aside.rename(path)
    await _run("touch", "-r", str(layer / "many"), str(copy / "many"))
    await erofs.convert(MKFS, layer, tmp_path / "one")
    await erofs.convert(MKFS, copy, tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


async def test_its_uuid_comes_from_its_content(
    layer: Path, tmp_path: Path, mounted: Mounted, describe: Describe
) -> None:
    image = tmp_path / "image"
    await erofs.convert(MKFS, layer, image)
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    assert erofs.name(image) == digest
    process = await asyncio.create_subprocess_exec(
        "blkid", "-p", "-o", "value", "-s", "UUID", str(image), stdout=asyncio.subprocess.PIPE
    )
    shown, _ = await process.communicate()
    assert shown.decode().strip().replace("-", "") == superblock.uuid(image.read_bytes()[:4096], digest).hex()
    with image.open("rb") as file:
        assert erofs.read_digest(file) == digest
    await _run("fsck.erofs", str(image))
    with mounted(image) as root:
        assert describe(root) == describe(layer)


async def test_whiteouts_and_opaque_directories_mean_the_same_to_an_overlay(
    tmp_path: Path, mounted: Mounted, describe: Describe
) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for path in ("kept", "removed", "hidden/below", "replaced/old", "merged/below"):
        (lower / path).parent.mkdir(parents=True, exist_ok=True)
        (lower / path).write_text(path)
    for path in ("hidden", "merged"):
        (upper / path).mkdir(parents=True)
        (upper / path / "above").write_text(path)
    os.setxattr(upper / "hidden", "trusted.overlay.opaque", b"y")
    os.mknod(upper / "removed", stat.S_IFCHR, os.makedev(0, 0))
    (upper / "replaced").write_text("a file now")
    for tree in (lower, upper):
        await erofs.convert(MKFS, tree, tmp_path / f"{tree.name}.erofs")
    with mounted(tmp_path / "lower.erofs") as low, mounted(tmp_path / "upper.erofs") as up:
        below, above = f"ro,lowerdir={up}:{low}", f"ro,lowerdir={upper}:{lower}"
        with (
            mounted(Path("overlay"), "overlay", below) as converted,
            mounted(Path("overlay"), "overlay", above) as original,
        ):
            seen = {os.fsdecode(path) for path in describe(converted)}
            assert seen == {".", "kept", "hidden", "hidden/above", "merged", "merged/above", "merged/below", "replaced"}
            assert describe(converted) == describe(original)


async def _run(*words: str) -> None:
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0


def _name(some: bytes) -> bytes:
    name = some.replace(b"\0", b"\1").replace(b"/", b"-")
    return name if name not in (b".", b"..") else b"..."


_NAMES = st.binary(min_size=1, max_size=12).map(_name) | st.integers(240, 254).map(lambda length: b"\xff" * length)
_File = tuple[str, bytes, int, int, int, int, dict[str, bytes]]
_FILES = st.tuples(
    st.sampled_from(["file", "sparse", "directory", "symlink", "fifo", "socket", "device", "hard link"]),
    st.binary(max_size=9000) | st.integers(4090, 4100).map(bytes),
    st.integers(0, 0o7777),
    st.integers(0, 2**32 - 2),
    # erofs-utils 1.5 cannot keep the last two seconds of 1969.
    st.integers(-(2**31), -3) | st.integers(0, 2**33 - 1),
    st.integers(0, 999_999_999),
    st.dictionaries(
        st.sampled_from(["user.a", "trusted.overlay.opaque", "security.b", "trusted." + "x" * 247]),
        st.binary(max_size=60) | st.integers(900, 1000).map(bytes),
        max_size=3,
    ),
)
_TREES = st.dictionaries(st.tuples(_NAMES) | st.tuples(_NAMES, _NAMES), _FILES, max_size=8)


def _build(root: bytes, tree: dict[tuple[bytes, ...], _File]) -> None:
    linkable: list[bytes] = []
    for names, (kind, data, mode, owner, seconds, nanoseconds, xattrs) in tree.items():
        path = os.path.join(root, *names)
        parent = os.path.dirname(path)
        if os.path.lexists(path) or (os.path.lexists(parent) and not os.path.isdir(parent)):
            continue
        os.makedirs(parent, exist_ok=True)
        if kind == "hard link" and linkable:
            os.link(linkable[owner % len(linkable)], path, follow_symlinks=False)
            continue
        _make(path, kind, data, owner)
        if kind != "directory":
            linkable.append(path)
        os.chown(path, owner, owner ^ 1, follow_symlinks=False)
        if kind != "symlink":
            os.chmod(path, mode)
        for name, value in xattrs.items():
            if not name.startswith("user.") or kind in ("file", "sparse", "hard link", "directory"):
                os.setxattr(path, name, value, follow_symlinks=False)
        os.utime(path, ns=(0, seconds * 10**9 + nanoseconds), follow_symlinks=False)


def _make(path: bytes, kind: str, data: bytes, number: int) -> None:
    match kind:
        case "directory":
            os.mkdir(path)
        case "symlink":
            os.symlink(b"to" + data[:4000].replace(b"\0", b"-"), path)
        case "fifo":
            os.mkfifo(path)
        case "socket":
            os.mknod(path, stat.S_IFSOCK)
        case "device":
            os.mknod(path, stat.S_IFCHR, os.makedev(len(data) % 4096, number % 2**20))
        case _:
            with open(path, "wb") as file:
                os.pwrite(file.fileno(), data, number % (3 << 20) if kind == "sparse" else 0)
                if kind == "sparse":
                    os.truncate(path, (3 << 20) + number % 9000)


@settings(max_examples=30, deadline=None)
@given(tree=_TREES)
async def test_any_tree_is_kept(tree: dict[tuple[bytes, ...], _File], mounted: Mounted, describe: Describe) -> None:
    with tempfile.TemporaryDirectory() as work:
        source, image = Path(work, "tree"), Path(work, "image")
        source.mkdir()
        _build(os.fsencode(source), tree)
        await erofs.convert(MKFS, source, image)
        with mounted(image) as root:
            assert describe(root) == describe(source)


async def test_a_full_disk_is_said(tmp_path: Path, small_disk: Path) -> None:
    (tmp_path / "tree").mkdir()
    for number in range(100):
        (tmp_path / "tree" / str(number)).write_bytes(os.urandom(20000))
    with pytest.raises(ResourceError, match=f"no room to make an image of {tmp_path}/tree as {small_disk}/image"):
        await erofs.convert(MKFS, tmp_path / "tree", small_disk / "image")


async def test_a_name_that_old_versions_cannot_take_is_named(tmp_path: Path) -> None:
    failing = tmp_path / "mkfs"
    failing.write_text("#!/bin/sh\necho '<E> erofs: [Error 2] No such file or directory' >&2\nexit 1\n")
    failing.chmod(0o755)
    long = tmp_path / "tree" / "a" / ("n" * 255)
    long.parent.mkdir(parents=True)
    long.touch()
    with pytest.raises(UnsupportedError, match=rf"perhaps for the name '{long}' of 255 bytes") as refusal:
        await erofs.convert(erofs.tool(str(failing), 30), tmp_path / "tree", tmp_path / "image")
    assert refusal.value.hint == "erofs-utils 1.8.5 and newer take such names"


async def test_no_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"^layer /nowhere: No such file or directory$"):
        await erofs.convert(MKFS, Path("/nowhere"), tmp_path / "image")


async def test_a_path_that_is_too_long_is_one_clear_line(tmp_path: Path) -> None:
    """The kernel lets one make it, step by step, and nobody name it."""
    tree = tmp_path / "tree"
    tree.mkdir()
    fd = os.open(tree, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=fd)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    with pytest.raises(HostError, match=rf"^layer {tree}: d{{200}}: File name too long$"):
        await erofs.convert(MKFS, tree, tmp_path / "image")


async def test_without_mkfs_the_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingPartError, match=r"mkfs\.nothing: no such program \(apt-get install erofs-utils\)"):
        await erofs.convert(erofs.tool("mkfs.nothing", 1), tmp_path, tmp_path / "image")
