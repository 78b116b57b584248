"""A layer's directory that is itself something mounted: the image behind it, or a refusal.

The erofs snapshotter of containerd 2.1 mounts each layer on the host, at
`.../snapshots/N/fs`, and so does containerd 2.2 and newer with all that a shim does not
say it takes (`containerd.io/runtime-allow-mounts`, info.py). There is an image of that
layer then, and it becomes the disk; the directory would only be made an image again.

What is mounted where is told by /proc/self/mountinfo, read once and only if one of the
layers is on another device than the directory above it.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from shim.errors import HostError
from shim.rootfs import filesystems, snapshotters
from shim.rootfs.mounts import Directory, Image, Plan

_MOUNTINFO: Final = Path("/proc/self/mountinfo")
_SYS_BLOCK: Final = Path("/sys/block")
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


class Mounted(NamedTuple):
    """What is mounted somewhere: the part of the file system ("/" is all), its type, and what it was mounted from."""

    root: str
    fstype: str
    source: str


def with_images(plan: Plan) -> Plan:
    """The plan with the image in the place of each directory that is only an image mounted. Blocks.

    Raises UnsupportedError for what a snapshotter mounts by FUSE, HostError for a directory that is not there.
    """
    mounted = [layer.path for layer in plan.lower if isinstance(layer, Directory) and _is_mounted(layer.path)]
    if not mounted:
        return plan
    try:
        table = read_mounts(_MOUNTINFO.read_text(errors="surrogateescape").splitlines())
    except OSError as error:
        raise HostError(f"{_MOUNTINFO}: {error.strerror}") from error
    images = {path: image for path in mounted if (image := _image(path, table.get(str(path)))) is not None}
    return replace(
        plan,
        lower=tuple(images.get(layer.path, layer) if isinstance(layer, Directory) else layer for layer in plan.lower),
    )


def read_mounts(lines: Iterable[str]) -> dict[str, Mounted]:
    """By mount point, what was mounted there last (proc_pid_mountinfo(5)). Pure."""
    found: dict[str, Mounted] = {}
    for line in lines:
        before, _, after = line.partition(" - ")
        _id, _parent, _device, root, point, *_ = before.split(" ")
        fstype, source, *_ = after.split(" ")
        found[_plain(point)] = Mounted(_plain(root), fstype, _plain(source))
    return found


def _is_mounted(path: Path) -> bool:
    """Whether something is mounted at the directory; a bind mount within one file system does not count."""
    try:
        return os.stat(path).st_dev != os.stat(path.parent).st_dev
    except OSError as error:
        raise HostError(f"layer {path}: {error.strerror}", hint="pull the image again") from error


def _image(path: Path, mounted: Mounted | None) -> Image | None:
    if mounted is None:
        return None
    if mounted.fstype.partition(".")[0] in ("fuse", "fuseblk"):
        raise snapshotters.lazy(path, mounted.source)
    if mounted.fstype != "erofs" or mounted.root != "/":
        return None
    file = _backing_file(mounted.source)
    return Image((file,), "erofs") if file is not None and _is_alone(file) else None


def _backing_file(source: str) -> Path | None:
    """The file that a file system is in: mounted as it is (Linux 6.12), or by a loop device for the whole of it."""
    path = Path(source)
    if not source.startswith("/dev/"):
        return path if path.is_absolute() and path.is_file() else None
    loop = _SYS_BLOCK / path.name / "loop"
    try:
        file = Path((loop / "backing_file").read_text().removesuffix("\n"))
        whole = (loop / "offset").read_text().strip() == "0"
    except OSError:  # it is no loop device
        return None
    return file if whole and file.is_file() else None


def _is_alone(file: Path) -> bool:
    """Whether the image is all there is; what was mounted with further ones does not tell which."""
    try:
        with file.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            devices = filesystems.further_devices(opened.fileno(), file)
            return all(device.at + device.size <= size for device in devices)
    except OSError as error:
        raise HostError(f"{file}: {error.strerror}") from error


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)
