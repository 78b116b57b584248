"""The image maker writes what the OCI image specification asks for, the same bytes each time."""

import hashlib
import io
import json
import stat
import tarfile
from pathlib import Path

from deploy import image

NAME = "localhost/team/thing:7"
LAYERS = [
    [image.directory("bin"), image.file("bin/run", b"one", 0o755), image.symlink("bin/sh", "run")],
    [image.whiteout("bin/run"), image.whiteout("top"), image.Entry("owned", stat.S_IFREG | 0o4755, uid=5, gid=6)],
]


def _blobs(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        files = {member.name: tar.extractfile(member) for member in tar.getmembers()}
        return {name: file.read() for name, file in files.items() if file is not None}


def _archive(tmp_path: Path, name: str = "a.tar") -> Path:
    out = tmp_path / name
    image.write_archive(out, NAME, LAYERS, command=("/bin/run",), user="5")
    return out


def test_every_blob_is_under_its_digest(tmp_path: Path) -> None:
    blobs = {name: content for name, content in _blobs(_archive(tmp_path)).items() if name.startswith("blobs/")}
    assert len(blobs) == 4
    assert all(name == f"blobs/sha256/{hashlib.sha256(content).hexdigest()}" for name, content in blobs.items())


def test_the_index_leads_to_the_configuration_and_the_layers(tmp_path: Path) -> None:
    blobs = _blobs(_archive(tmp_path))
    assert json.loads(blobs["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads(blobs["index.json"])["manifests"]
    assert entry["annotations"] == {"io.containerd.image.name": NAME, "org.opencontainers.image.ref.name": "7"}
    manifest = json.loads(_blob(blobs, entry))
    config = json.loads(_blob(blobs, manifest["config"]))
    assert (config["architecture"], config["os"]) == ("amd64", "linux")
    assert (config["config"]["Cmd"], config["config"]["User"]) == (["/bin/run"], "5")
    # Uncompressed layers: the digest of the blob is the one of its content.
    assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
    assert len(manifest["layers"]) == len(LAYERS)


def _blob(blobs: dict[str, bytes], descriptor: dict[str, object]) -> bytes:
    blob = blobs["blobs/sha256/" + str(descriptor["digest"]).removeprefix("sha256:")]
    assert len(blob) == descriptor["size"]
    return blob


def test_layers_keep_type_mode_owner_and_target() -> None:
    with tarfile.open(fileobj=io.BytesIO(image.layer_tar(LAYERS[0]))) as tar:
        assert [(info.name, info.type, info.mode, info.linkname) for info in tar] == [
            ("bin", tarfile.DIRTYPE, 0o755, ""),
            ("bin/run", tarfile.REGTYPE, 0o755, ""),
            ("bin/sh", tarfile.SYMTYPE, 0o777, "run"),
        ]
    with tarfile.open(fileobj=io.BytesIO(image.layer_tar(LAYERS[1]))) as tar:
        assert [info.name for info in tar] == ["bin/.wh.run", ".wh.top", "owned"]
        assert [(info.uid, info.gid, info.mode, info.mtime) for info in tar][-1] == (5, 6, 0o4755, 0)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    assert _archive(tmp_path, "a.tar").read_bytes() == _archive(tmp_path, "b.tar").read_bytes()


def test_busybox_has_all_its_applets() -> None:
    entries = {entry.path: entry for entry in image.busybox_layer()}
    assert stat.S_IMODE(entries["bin/busybox"].mode) == 0o755
    assert entries["bin/sh"].target == "busybox"
    assert stat.S_IMODE(entries["tmp"].mode) == 0o1777


def test_a_layer_may_be_a_file(tmp_path: Path) -> None:
    layer = tmp_path / "layer.tar"
    layer.write_bytes(image.layer_tar(LAYERS[0]))
    out = tmp_path / "b.tar"
    image.write_archive(out, NAME, [layer, LAYERS[1]], command=("/bin/run",), user="5")
    assert out.read_bytes() == _archive(tmp_path).read_bytes()


def test_environment_and_stop_signal(tmp_path: Path) -> None:
    out = tmp_path / "a.tar"
    image.write_archive(out, NAME, LAYERS, environment=("A=1", "B=2"), stop_signal="SIGRTMIN+3")
    blobs = _blobs(out)
    (entry,) = json.loads(blobs["index.json"])["manifests"]
    settings = json.loads(_blob(blobs, json.loads(_blob(blobs, entry))["config"]))["config"]
    assert (settings["Env"], settings["StopSignal"]) == (["A=1", "B=2"], "SIGRTMIN+3")
