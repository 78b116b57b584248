"""The image that a container was made from: its manifest and configuration, as the content store has them.

A container's record has only the image's name, and a name may have been given to another image since (pulled anew, or
committed to). What the container was made from is told by its snapshot's parent, which is named by its layers.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from api import containerd_pb2 as api
from shim.commit.change import Json
from shim.commit.document import INDEXES, MANIFESTS, chain_id, diff_ids_of
from shim.containerd.client import Client
from shim.containerd.content import Content
from shim.errors import HostError, NotFoundError, SpecError, StateError, UnsupportedError

# Manifests and configurations: registries refuse larger ones (OCI distribution, 4 MiB at least).
_DOCUMENT_MAX: Final = 8 << 20
_NESTED_MAX: Final = 4


@dataclass(frozen=True, slots=True)
class Base:
    """One manifest of an image, for one platform."""

    manifest_type: str
    manifest: Json
    config: Json

    @property
    def layer_digests(self) -> tuple[str, ...]:
        """The blobs of its layers, lowest first."""
        return tuple(str(layer.get("digest", "")) for layer in _objects(self.manifest.get("layers")))


async def find_base(client: Client, container: api.Container, parent: str) -> Base:
    """The image of the container's name whose layers are the snapshot `parent`, all of its blobs there.

    Raises NotFoundError (the image, or one of its blobs), StateError (it is another one by now), SpecError (the
    container was made from none), UnsupportedError, HostError.
    """
    if not container.image:
        raise SpecError(
            f"container {container.id}: was made from no image", hint="ctr images import makes one of a root directory"
        )
    image = await client.image(container.image)
    seen = False
    async for base in _manifests(client.content, image.target.media_type, image.target.digest, 0):
        seen = True
        if chain_id(diff_ids_of(base.config)) == parent:
            await _check_layers(client.content, container.image, base)
            return base
    if not seen:
        raise NotFoundError(
            f"image {container.image}: neither manifest nor configuration of it are in containerd's content store",
            hint=f"pull it again: ctr content fetch {container.image}",
        )
    raise StateError(
        f"image {container.image}: is not what container {container.id} was made from ({parent or 'no layers'})",
        hint="the name was given to another image since: give it back (ctr images tag), or run the container anew",
    )


async def _manifests(content: Content, media_type: str, digest: str, depth: int) -> AsyncIterator[Base]:
    """Every manifest that is there with its configuration; those of other platforms mostly are not."""
    if media_type not in (*INDEXES, *MANIFESTS):
        if depth:
            return  # an attestation, or whatever else an index may name
        raise UnsupportedError(f"blob {digest}: {media_type} is no image that can be extended")
    if depth > _NESTED_MAX or await content.info(digest) is None:
        return
    document = await _document(content, digest)
    if media_type in INDEXES:
        for entry in _objects(document.get("manifests")):
            async for found in _manifests(
                content, str(entry.get("mediaType", "")), str(entry.get("digest", "")), depth + 1
            ):
                yield found
        return
    described = document.get("config")
    config = str(described.get("digest", "")) if isinstance(described, dict) else ""
    if await content.info(config) is not None:
        yield Base(media_type, document, await _document(content, config))


async def _check_layers(content: Content, name: str, base: Base) -> None:
    missing = [digest for digest in base.layer_digests if await content.info(digest) is None]
    if missing:
        raise NotFoundError(
            f"image {name}: {len(missing)} of its {len(base.layer_digests)} layers are not in containerd's content"
            f" store, {missing[0]} for one; a new image would lack them, too",
            hint=f"fetch them: ctr content fetch {name}",
        )


async def _document(content: Content, digest: str) -> Json:
    try:
        document = json.loads(await content.read(digest, _DOCUMENT_MAX))
    except ValueError as error:
        raise HostError(f"blob {digest}: is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise HostError(f"blob {digest}: is no object of JSON")
    return document


def _objects(value: object) -> list[Json]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
