"""What the tests of prepare have in hand: snapshots, prepare itself, and disks looked at as the guest would."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from api import guest_pb2, types_pb2
from shim.journal import Journal
from shim.rootfs.cache import LayerCache
from shim.rootfs.plan import Disk
from shim.rootfs.prepare import PreparedRootfs, prepare


class Mounted(Protocol):
    """The fixture of that name, in conftest.py."""

    def __call__(self, source: Path, fstype: str = ..., options: str = ...) -> AbstractContextManager[Path]: ...


Describe = Callable[[Path], dict[bytes, tuple[object, ...]]]


class Host:
    """The host's directories, and the shortest ways to use them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data_dir = root / "data" / "0123456789abcdef01234567"
        self.places = root / "data" / "writable"
        self.journal = Journal(root)

    def snapshot(self, number: int, **files: str) -> Path:
        """A snapshot's directory with these files."""
        path = self.root / "snapshots" / str(number) / "fs"
        path.mkdir(parents=True)
        for name, content in files.items():
            (path / name).write_text(content)
        return path

    def overlay(self, upper: Path, *lower: Path) -> types_pb2.Mount:
        """An active snapshot as the overlayfs snapshotter mounts it."""
        options = [f"workdir={upper.parent}/work", f"upperdir={upper}", f"lowerdir={':'.join(map(str, lower))}"]
        return types_pb2.Mount(type="overlay", source="overlay", options=options)

    async def prepare(self, *mounts: types_pb2.Mount, mkfs_erofs: str = "mkfs.erofs") -> PreparedRootfs:
        """As Create does it."""
        return await prepare(
            mounts,
            cache=LayerCache(self.root / "cache", limit_mib=100, mkfs_erofs=mkfs_erofs, deadline_s=30),
            data_dir=self.data_dir,
            places=self.places,
            ready_made=self.root / "empty",
            writable_size_mib=64,
            journal=self.journal,
            mkfs_ext4="mkfs.ext4",
        )


def bind(source: Path | str, *options: str, kind: str = "bind") -> types_pb2.Mount:
    """A mount of one source, by default a bind."""
    return types_pb2.Mount(type=kind, source=str(source), options=options)


@contextlib.contextmanager
def as_seen(prepared: PreparedRootfs, work: Path, mounted: Mounted) -> Iterator[Path]:
    """The read-only part of the root as the guest sees it."""
    with contextlib.ExitStack() as stack:
        disks = {disk.serial: assembled(disk, work) for disk in prepared.disks}
        points = [stack.enter_context(mount(layer, disks[layer.serial], mounted)) for layer in prepared.message.lower]
        (work / "nothing").mkdir(exist_ok=True)
        lower = ":".join(map(str, [*points, work / "nothing"]))
        yield stack.enter_context(mounted(Path("overlay"), "overlay", f"ro,lowerdir={lower}"))


def mount(layer: guest_pb2.Layer, disk: Path, mounted: Mounted) -> AbstractContextManager[Path]:
    options = "loop,ro"
    if layer.partition:
        words = ["partx", "--raw", "--noheadings", "--bytes", "--output", "START,SIZE", "--nr", str(layer.partition)]
        shown = subprocess.run([*words, disk], check=True, capture_output=True, text=True).stdout.split()
        options += f",offset={int(shown[0]) * 512},sizelimit={shown[1]}"
    return mounted(disk, layer.fstype, options)


def assembled(disk: Disk, work: Path) -> Path:
    """The disk as a file: QEMU's work."""
    path = work / f"disk-{disk.serial}"
    with path.open("wb") as file:
        for extent in disk.extents:
            content = os.pread(extent.fd, extent.size + 1, 0) if disk.read_only else b""
            assert len(content) == extent.size or not disk.read_only
            file.write(content)
    return path


def contents(root: Path) -> dict[str, str]:
    """What each file says, by its name."""
    return {path.name: path.read_text() for path in root.iterdir()}


def erofs_layer(host: Host, number: int, **files: str) -> Path:
    """A committed layer's image as the erofs snapshotter has it."""
    path = host.root / f"layer{number}.erofs"
    subprocess.run(["mkfs.erofs", "--quiet", path, host.snapshot(number, **files)], check=True)
    return path
