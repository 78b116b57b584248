"""Configuration and manifest of the new image.

Pure. OCI image specification, config.md and manifest.md; an image of docker's stays one of docker's (the same documents
under other media types). What of the old image's documents is not known here stays as it is.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from shim.commit.change import Json

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
INDEXES: Final = (OCI_INDEX, DOCKER_INDEX)
MANIFESTS: Final = (OCI_MANIFEST, DOCKER_MANIFEST)

_LAYER: Final = {
    (OCI_MANIFEST, True): "application/vnd.oci.image.layer.v1.tar+gzip",
    (OCI_MANIFEST, False): "application/vnd.oci.image.layer.v1.tar",
    (DOCKER_MANIFEST, True): "application/vnd.docker.image.rootfs.diff.tar.gzip",
    (DOCKER_MANIFEST, False): "application/vnd.docker.image.rootfs.diff.tar",
}
_CONFIG: Final = {
    OCI_MANIFEST: "application/vnd.oci.image.config.v1+json",
    DOCKER_MANIFEST: "application/vnd.docker.container.image.v1+json",
}
# What containerd's garbage collection follows from a blob (docs/garbage-collection.md of containerd).
_REFERS_TO_BLOB: Final = "containerd.io/gc.ref.content"
_REFERS_TO_SNAPSHOT: Final = "containerd.io/gc.ref.snapshot"


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer as a blob, and the digest of its tar without compression."""

    media_type: str
    digest: str
    size: int
    diff_id: str


@dataclass(frozen=True, slots=True)
class Told:
    """What the new image's history tells: who, why, of which command's container, when (RFC 3339)."""

    author: str
    message: str
    created_by: str
    created: str


def layer_type(manifest_type: str, *, compressed: bool) -> str:
    """The media type of a layer in such a manifest."""
    return _LAYER[manifest_type, compressed]


def chain_id(diff_ids: Sequence[str]) -> str:
    """What containerd calls the snapshot of these layers, lowest first (OCI config.md, ChainID); of none, ""."""
    chain = ""
    for diff_id in diff_ids:
        chain = f"sha256:{_sha256(f'{chain} {diff_id}'.encode())}" if chain else diff_id
    return chain


def diff_ids_of(config: Mapping[str, object]) -> tuple[str, ...]:
    """The layers of a configuration, lowest first."""
    rootfs = config.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    return tuple(str(diff_id) for diff_id in found) if isinstance(found, list) else ()


def new_config(base: Mapping[str, object], settings: Mapping[str, object], layer: Layer, told: Told) -> Json:
    """The base's configuration with one more layer and other `settings`, which are how it is run."""
    history = base.get("history")
    entry = {"created": told.created, "created_by": told.created_by, "author": told.author, "comment": told.message}
    result: Json = dict(base)
    result["created"] = told.created
    if told.author:
        result["author"] = told.author
    result["config"] = dict(settings)
    result["rootfs"] = {"type": "layers", "diff_ids": [*diff_ids_of(base), layer.diff_id]}
    result["history"] = [
        *(history if isinstance(history, list) else []),
        {key: value for key, value in entry.items() if value},
    ]
    return result


def new_manifest(base: Mapping[str, object], manifest_type: str, config: bytes, layer: Layer) -> Json:
    """The base's manifest with another configuration and one more layer.

    Its annotations are not taken over: they tell of the base (its sources, its digest's signature).
    """
    layers = base.get("layers")
    return {
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": {"mediaType": _CONFIG[manifest_type], "digest": f"sha256:{_sha256(config)}", "size": len(config)},
        "layers": [
            *(layers if isinstance(layers, list) else []),
            {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size},
        ],
    }


def manifest_labels(config_digest: str, layer_digests: Sequence[str]) -> dict[str, str]:
    """What keeps an image's blobs as long as its manifest is kept: the configuration first, as all clients do it."""
    return {f"{_REFERS_TO_BLOB}.{number}": digest for number, digest in enumerate((config_digest, *layer_digests))}


def config_labels(snapshotter: str, chain: str) -> dict[str, str]:
    """What keeps an image's unpacked layers as long as its configuration is kept."""
    return {f"{_REFERS_TO_SNAPSHOT}.{snapshotter}": chain}


def encoded(document: Mapping[str, object]) -> bytes:
    """A document as it is stored."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
