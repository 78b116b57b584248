"""`qemubox commit`, the stock way beside it, and trees to compare."""

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TypedDict

from deploy.image import LAYER_TYPE, MANIFEST_TYPE, add_file, descriptor
from harness.box import RUNTIMES, Box
from harness.distros import PROGRAM
from harness.flavours import CHECKOUT

_COMMIT_DEADLINE_S: Final = 120.0
# apt under TCG, when both cores are busy.
_SHELL_DEADLINE_S: Final = 240.0
_ENVIRONMENT: Final = "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C; set -e; "


def command(box: Box, *words: str) -> list[str]:
    """The command line of `qemubox commit` in the cell; runc's tests need nothing installed."""
    return box.containerd.cell.inside([sys.executable, "-m", "shim.cli", "commit", *words])


def environment(box: Box) -> dict[str, str]:
    """Where its code and its configuration are."""
    return {**os.environ, "PYTHONPATH": str(CHECKOUT), **box.qemubox.environment}


def commit(box: Box, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run it to its end, whatever that is."""
    return subprocess.run(
        command(box, *words),
        check=False,
        capture_output=True,
        text=True,
        timeout=_COMMIT_DEADLINE_S,
        env=environment(box),
        cwd="/",
    )


def commit_stock(box: Box, container: str, base: str, name: str) -> None:
    """What `ctr` alone can do: containerd's own comparison, and an archive of what is new in the image, imported."""
    layer = box.containerd.ctr(
        "snapshots", "diff", "--media-type", f"{LAYER_TYPE}+gzip", container, deadline_s=_COMMIT_DEADLINE_S
    ).checked()
    listed = box.containerd.ctr("images", "ls").checked().text.splitlines()
    top = next(line.split()[2] for line in listed if line.startswith(base))
    manifest = _content(box, top)
    config = _content(box, manifest["config"]["digest"])
    config["rootfs"]["diff_ids"].append(f"sha256:{hashlib.sha256(gzip.decompress(layer.stdout)).hexdigest()}")
    new_config = json.dumps(config).encode()
    manifest["config"] = {**manifest["config"], **_digested(new_config)}
    manifest["layers"].append(descriptor(f"{LAYER_TYPE}+gzip", layer.stdout))
    new_manifest = json.dumps(manifest).encode()
    named = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    index = {"schemaVersion": 2, "manifests": [descriptor(MANIFEST_TYPE, new_manifest) | {"annotations": named}]}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        add_file(archive, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        add_file(archive, "index.json", json.dumps(index).encode())
        for data in (layer.stdout, new_config, new_manifest):
            add_file(archive, _blob(f"sha256:{hashlib.sha256(data).hexdigest()}"), data)
    box.containerd.ctr("images", "import", "-", stdin=out.getvalue(), deadline_s=_COMMIT_DEADLINE_S).checked()


@contextmanager
def sleeping(box: Box, image: str, *options: str) -> Iterator[str]:
    """A container to exec in; removed at the end, in whatever state it is."""
    container = box.start("sleep", "1000", options=("--null-io", *options), image=image)
    yield container
    end(box, container)
    box.remove(container).checked()


def end(box: Box, container: str) -> None:
    """Its task is over and gone; its snapshot stays."""
    if box.status(container) not in ("", "STOPPED"):
        box.kill(container)
    box.wait_stopped(container)
    box.delete_task(container)


def shell(box: Box, container: str, script: str) -> str:
    """Run a script in a container with exec; what it said. It must succeed."""
    done = box.containerd.ctr(
        *("tasks", "exec", "--exec-id", "e", container, "sh", "-c", _ENVIRONMENT + script), deadline_s=_SHELL_DEADLINE_S
    )
    return done.checked().stdout.decode()


def tree(box: Box, container: str) -> list[str]:
    """Every inode that a container sees, a line each (lister.c)."""
    return shell(box, container, f"exec {PROGRAM}").splitlines()


def tree_of_image(box: Box, image: str, runtime: str, *options: str) -> list[str]:
    """Every inode of an image, as a container of that runtime sees it."""
    arguments = ["run", "--rm", *options, "--runtime", RUNTIMES[runtime], image, box.new_id(), PROGRAM]
    return box.containerd.ctr(*arguments, deadline_s=_SHELL_DEADLINE_S).checked().stdout.decode().splitlines()


def assert_same(before: list[str], after: list[str]) -> None:
    """Two trees, line by line; the first few differences are shown."""
    assert before, "an empty tree"
    if before != after:
        only = [f"- {line}" for line in before if line not in set(after)]
        only += [f"+ {line}" for line in after if line not in set(before)]
        shown = "\n".join(sorted(only, key=lambda line: line[2:])[:40])
        raise AssertionError(f"{len(only)} of {len(before)} lines differ:\n{shown}")


class _Manifest(TypedDict):
    config: dict[str, object]
    layers: list[dict[str, object]]
    rootfs: dict[str, list[str]]


def _content(box: Box, digest: object) -> _Manifest:
    document: _Manifest = json.loads(box.containerd.ctr("content", "get", str(digest)).checked().stdout)
    return document


def _digested(data: bytes) -> dict[str, object]:
    return {"digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data)}


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"
