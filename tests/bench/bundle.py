"""What containerd hands to a shim, made here: a bundle with containerd's own specification and snapshot.

`ctr containers create` writes the specification and prepares the snapshot as for any
container; only the task is not containerd's, so that its shim can be called by itself.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from api import task_pb2, types_pb2
from harness.images import BUSYBOX
from tests.bench.place import Place


@dataclass(frozen=True)
class Bundle:
    """A directory for a shim to start in. `log` is open: the shim's end of it would otherwise wait for a reader."""

    container_id: str
    path: Path
    mounts: list[types_pb2.Mount]
    stdout: Path
    stderr: Path
    log: int

    def create_request(self) -> task_pb2.CreateTaskRequest:
        """Create, with both streams of output and no input."""
        return task_pb2.CreateTaskRequest(
            id=self.container_id,
            bundle=str(self.path),
            rootfs=self.mounts,
            stdout=str(self.stdout),
            stderr=str(self.stderr),
        )

    def empty_log(self) -> None:
        """Take what the shim has said, so that there is room for more."""
        try:
            while os.read(self.log, 1 << 16):
                pass
        except BlockingIOError:
            return


@contextmanager
def bundle(place: Place, container_id: str, args: list[str]) -> Iterator[Bundle]:
    """A bundle for a container that runs `args`; its shim must be gone at the end of the block."""
    containerd = place.containerd
    containerd.ctr("containers", "create", BUSYBOX, container_id, "true").checked()
    path = place.cell.directory / "bundles" / container_id
    (path / "rootfs").mkdir(parents=True)
    spec = json.loads(containerd.ctr("containers", "info", container_id).checked().stdout)["Spec"]
    spec["process"]["args"] = args
    (path / "config.json").write_text(json.dumps(spec))
    for name in ("log", "stdout", "stderr"):
        os.mkfifo(path / name, 0o600)
    log = os.open(path / "log", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield Bundle(container_id, path, _mounts(place, container_id), path / "stdout", path / "stderr", log)
    finally:
        os.close(log)
        shutil.rmtree(path)
        containerd.ctr("containers", "rm", container_id).checked()


def _mounts(place: Place, key: str) -> list[types_pb2.Mount]:
    """A snapshot's mounts, from the commands that `ctr snapshots mounts` prints: mount -t TYPE SOURCE TARGET -o …."""
    found = []
    for line in place.containerd.ctr("snapshots", "mounts", "/", key).checked().text.splitlines():
        _mount, _t, kind, source, _target, _o, options = line.split(" ")
        found.append(types_pb2.Mount(type=kind, source=source, options=options.split(",")))
    return found
