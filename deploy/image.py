"""Makes small OCI images out of nothing but a static busybox, so that no registry is needed.

`install.sh --demo` and the tests use it: an image is a list of layers, a layer is a list
of entries, and the result is an OCI image layout in a tar file, as `ctr image import`
takes it (OCI image specification 1.0: image-layout.md, layer.md, config.md). The same
input gives the same bytes: times are 0, owners are root unless said otherwise.

Only the standard library: it runs with the system's Python before anything is installed.
"""

import argparse
import hashlib
import io
import json
import stat
import subprocess
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

BUSYBOX = Path("/usr/bin/busybox")
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class Entry:
    """One file of a layer. `mode` includes the type (stat.S_IFREG and so on); `target` is a symlink's."""

    path: str
    mode: int
    content: bytes = b""
    target: str = ""
    uid: int = 0
    gid: int = 0
    xattrs: dict[str, str] = field(default_factory=dict)


def file(path: str, content: bytes, mode: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(path, stat.S_IFREG | mode, content)


def directory(path: str, mode: int = 0o755) -> Entry:
    """A directory."""
    return Entry(path, stat.S_IFDIR | mode)


def symlink(path: str, target: str) -> Entry:
    """A symbolic link to `target`."""
    return Entry(path, stat.S_IFLNK | 0o777, target=target)


def whiteout(path: str) -> Entry:
    """Takes `path` of a lower layer away (OCI layer.md, "Whiteouts")."""
    parent, _, name = path.rpartition("/")
    return file(f"{parent}/.wh.{name}" if parent else f".wh.{name}", b"")


def busybox_layer(busybox: Path = BUSYBOX) -> list[Entry]:
    """A root file system with busybox as every one of its applets, and the few files that programs expect.

    Raises FileNotFoundError when busybox is not there, CalledProcessError when it does not run.
    """
    listed = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True, timeout=30)
    entries = [directory(name) for name in ("bin", "dev", "etc", "proc", "root", "sys", "var", "home")]
    entries.append(directory("tmp", 0o1777))
    entries.append(file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"))
    entries.append(file("etc/group", b"root:x:0:\nnogroup:x:65534:\n"))
    entries.append(file("bin/busybox", busybox.read_bytes(), 0o755))
    applets = sorted(set(listed.stdout.split()) - {"busybox"})
    entries.extend(symlink(f"bin/{applet}", "busybox") for applet in applets)
    return entries


def layer_tar(entries: Iterable[Entry]) -> bytes:
    """The entries as an uncompressed tar, in the order given."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            archive.addfile(_tar_info(entry), io.BytesIO(entry.content))
    return buffer.getvalue()


def _tar_info(entry: Entry) -> tarfile.TarInfo:
    info = tarfile.TarInfo(entry.path)
    info.mode = stat.S_IMODE(entry.mode)
    info.uid, info.gid = entry.uid, entry.gid
    info.size = len(entry.content)
    info.pax_headers = {f"SCHILY.xattr.{name}": value for name, value in entry.xattrs.items()}
    if stat.S_ISDIR(entry.mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(entry.mode):
        info.type = tarfile.SYMTYPE
        info.linkname = entry.target
    return info


def write_archive(
    out: Path,
    name: str,
    layers: Sequence[Iterable[Entry] | bytes | Path],
    command: Sequence[str] = ("/bin/sh",),
    user: str = "",
    environment: Sequence[str] = ("PATH=/bin",),
    stop_signal: str = "",
) -> None:
    """Write the image `name` (such as "localhost/demo:1") to the tar file `out`.

    The lowest layer comes first, each as its entries or as a tar already, which may be a file of any size.
    `stop_signal` ("SIGRTMIN+3") is what clients that read it stop a container with; empty is SIGTERM.
    """
    tars = [layer if isinstance(layer, bytes | Path) else layer_tar(layer) for layer in layers]
    settings = {"Cmd": list(command), "Env": list(environment), "User": user, "WorkingDir": "/"}
    config = _json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": settings | ({"StopSignal": stop_signal} if stop_signal else {}),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_hex(tar)}" for tar in tars]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": descriptor(CONFIG_TYPE, config),
            "layers": [descriptor(LAYER_TYPE, tar) for tar in tars],
        }
    )
    named = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    index = _json(
        {
            "schemaVersion": 2,
            "mediaType": INDEX_TYPE,
            "manifests": [descriptor(MANIFEST_TYPE, manifest) | {"annotations": named}],
        }
    )
    blobs = {_hex(blob): blob for blob in [config, manifest, *tars]}
    with tarfile.open(out, mode="w") as archive:
        add_file(archive, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        add_file(archive, "index.json", index)
        for digest, blob in blobs.items():
            add_file(archive, f"blobs/sha256/{digest}", blob)


def add_file(archive: tarfile.TarFile, path: str, content: bytes | Path) -> None:
    """Add a file of an image layout."""
    info = tarfile.TarInfo(path)
    info.size = _size(content)
    info.mode = 0o644
    with _opened(content) as file:
        archive.addfile(info, file)


def descriptor(media_type: str, blob: bytes | Path) -> dict[str, object]:
    """What names a blob (OCI descriptor.md)."""
    return {"mediaType": media_type, "digest": f"sha256:{_hex(blob)}", "size": _size(blob)}


def _opened(blob: bytes | Path) -> io.BytesIO | io.BufferedReader:
    return io.BytesIO(blob) if isinstance(blob, bytes) else blob.open("rb")


def _size(blob: bytes | Path) -> int:
    return len(blob) if isinstance(blob, bytes) else blob.stat().st_size


def _hex(blob: bytes | Path) -> str:
    with _opened(blob) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def main() -> None:
    """`image.py OUT NAME`: write a busybox image, or one of the layers that are named."""
    parser = argparse.ArgumentParser(description="Write an OCI archive of an image, for `ctr image import`.")
    parser.add_argument("out", type=Path, help="the tar file to write")
    parser.add_argument("name", help="the image's name, such as localhost/qemubox/demo:1")
    parser.add_argument("--busybox", type=Path, default=BUSYBOX, help="a statically linked busybox, the one layer")
    parser.add_argument("--layer", type=Path, action="append", help="a tar file that is a layer; the lowest first")
    parser.add_argument("--command", default="/bin/sh", help="the program to run")
    parser.add_argument("--env", action="append", help="NAME=VALUE of its environment")
    parser.add_argument("--stop-signal", default="", help="what ends it in order, such as SIGRTMIN+3")
    arguments = parser.parse_args()
    write_archive(
        arguments.out,
        arguments.name,
        arguments.layer or [busybox_layer(arguments.busybox)],
        command=(arguments.command,),
        environment=arguments.env or ("PATH=/bin",),
        stop_signal=arguments.stop_signal,
    )


if __name__ == "__main__":
    main()
