"""The cache of what ADD has made, in libcni's own place and format: DEL, CHECK and GC go by it.

CACHE_DIR/results/NETWORK-CONTAINERID-IFNAME, one JSON object of the kind cniCacheV1 (libcni's api.go, cachedInfo).
So libcni, and with it nerdctl and containerd, can read ours and we theirs. Unlike libcni's, an entry is there before
the first plugin runs, and tells what has been made after each: who is killed half way leaves something to undo it by.
"""

from __future__ import annotations

import base64
import binascii
import os
from contextlib import suppress
from pathlib import Path

from cni import document, network, result
from cni.attachment import Attachment, CachedAttachment
from cni.document import DocumentError, Json, JsonValue
from cni.errors import CacheError, ConfigError
from cni.network import NetworkList
from cni.result import Result

_KIND = "cniCacheV1"
_BYTES_MAX = 8 << 20


class Cache:
    """Entries by network, container and interface. Everything blocks."""

    def __init__(self, cache_dir: Path) -> None:
        self._cache_dir = cache_dir
        self._results = cache_dir / "results"

    def write(self, entry: CachedAttachment) -> None:
        """Put an entry in place of what was there, whole or not at all, on the disk. Raises CacheError."""
        path = self._path(entry.network.name, entry.attachment)
        new = self._new(path)
        try:
            self._results.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with open(fd, "wb") as file:
                file.write(_encoded(entry))
                file.flush()
                os.fdatasync(fd)  # else a host that loses power has an empty file of the right name
            os.rename(new, path)
        except OSError as error:
            with suppress(OSError):
                new.unlink()
            raise CacheError(f"the CNI result {path} cannot be written: {error.strerror}") from error

    def read(self, name: str, attachment: Attachment) -> CachedAttachment | None:
        """The entry of this container and interface in the network `name`, if there is one that can be understood."""
        return _entry(self._path(name, attachment))

    def remove(self, name: str, attachment: Attachment) -> None:
        """Forget it; one that is not there is forgotten already. Raises CacheError."""
        path = self._path(name, attachment)
        try:
            path.unlink(missing_ok=True)
            self._new(path).unlink(missing_ok=True)
        except OSError as error:
            raise CacheError(f"the CNI result {path} cannot be removed: {error.strerror}") from error

    def entries(self) -> list[CachedAttachment]:
        """All that can be understood, of every network and whoever wrote it, by their files' names."""
        try:
            names = sorted(os.listdir(self._results))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise CacheError(f"the CNI results in {self._results} cannot be read: {error.strerror}") from error
        found = [_entry(self._results / name) for name in names]
        return [entry for entry in found if entry is not None]

    def _path(self, name: str, attachment: Attachment) -> Path:
        return self._results / f"{name}-{attachment.container_id}-{attachment.ifname}"

    def _new(self, path: Path) -> Path:
        """One in the making. Not beside the others: libcni takes every file there for an entry."""
        return self._cache_dir / f".{path.name}"


def _encoded(entry: CachedAttachment) -> bytes:
    attachment = entry.attachment
    written: Json = {
        "kind": _KIND,
        "containerId": attachment.container_id,
        "config": base64.b64encode(entry.network.raw).decode(),
        "ifName": attachment.ifname,
        "networkName": entry.network.name,
    }
    if attachment.netns:
        written["netns"] = attachment.netns
    if attachment.args:
        written["cniArgs"] = [list[JsonValue](pair) for pair in attachment.args]
    if attachment.capabilities:
        written["capabilityArgs"] = dict(attachment.capabilities)
    if entry.result is not None:
        written["result"] = entry.result.document(entry.network.cni_version)
    return document.dumps(written)


def _entry(path: Path) -> CachedAttachment | None:
    try:
        # By an opener, as open() leaves a descriptor of another's open when it turns out to be a directory's.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            return _decoded(document.load_object(file.read(_BYTES_MAX)), str(path))
    except (OSError, DocumentError, ConfigError):
        return None  # libcni passes over these, too: they may be of a version to come, or of nobody


def _decoded(found: Json, source: str) -> CachedAttachment | None:
    if found.get("kind") != _KIND:
        return None
    try:
        raw = base64.b64decode(document.text(found, "config"), validate=True)
    except binascii.Error as error:
        raise DocumentError(f"config: {error}") from error
    listed = network.parse(raw, source)
    attachment = Attachment(
        container_id=document.text(found, "containerId"),
        netns=document.text(found, "netns"),
        ifname=document.text(found, "ifName"),
        args=tuple(_pair(item) for item in _list(found, "cniArgs")),
        capabilities=document.mapping(found, "capabilityArgs"),
    )
    if not (attachment.container_id and attachment.ifname) or document.text(found, "networkName") != listed.name:
        return None
    return CachedAttachment(listed, attachment, _result(found, listed))


def _result(found: Json, listed: NetworkList) -> Result | None:
    """What was made; one that cannot be understood is as good as none, and a DEL must go on all the same."""
    try:
        made = document.mapping(found, "result")
        return result.parse(made, listed.cni_version) if made else None
    except DocumentError:
        return None


def _list(found: Json, key: str) -> list[JsonValue]:
    value = found.get(key)
    return value if isinstance(value, list) else []


def _pair(item: JsonValue) -> tuple[str, str]:
    match item:
        case [str() as key, str() as value]:
            return key, value
    raise DocumentError("cniArgs must be pairs of texts")
