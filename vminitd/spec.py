"""The specification as crun gets it: the shim's, with only the guest's own paths put in. Pure.

Capabilities, seccomp, masked paths, rlimits, user, no_new_privileges, limits: all stays as it came. Nothing here may
ever make a container less confined.
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping

from vminitd.errors import RequestError

JsonValue = str | int | float | bool | None | list["JsonValue"] | dict[str, "JsonValue"]
Json = dict[str, JsonValue]

FILE_SOURCE_PREFIX = "qemubox-file:"
DISK_SOURCE_PREFIX = "qemubox-disk:"
VOLUME_SOURCE_PREFIX = "qemubox-volume:"

_HASHED = "sha256-"
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


def safe_name(identifier: str) -> str:
    """A name for an id in paths, in cgroups and for crun: the id itself where it is harmless, else a hash of it."""
    if _SAFE.fullmatch(identifier) and not identifier.startswith(_HASHED):
        return identifier
    return _HASHED + hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).hexdigest()[:48]


def parse(document: bytes, what: str) -> Json:
    """Raises RequestError, which names `what`, if `document` is no JSON object."""
    try:
        value = json.loads(document)
    except ValueError as error:
        raise RequestError(f"{what} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise RequestError(f"{what} is not a JSON object")
    return value


def for_crun(spec: Json, *, rootfs: str, cgroup: str, files: Mapping[str, str], share: str = "") -> bytes:
    """`spec` with the root's path, the cgroup's path and the sources of `files` (path by name) put in.

    `share` is where the volumes are mounted, each by its name; empty where there are none. Raises RequestError for a
    mount of a file that was not sent, or of a volume where there are none, and where the parts are not objects.
    """
    adapted = dict(spec)
    adapted["root"] = {**_section(spec, "root"), "path": rootfs}
    adapted["linux"] = {**_section(spec, "linux"), "cgroupsPath": cgroup}
    mounts = spec.get("mounts")
    if mounts is not None:
        if not isinstance(mounts, list):
            raise RequestError("mounts of the specification is not a list")
        adapted["mounts"] = [_mount(entry, files, share) for entry in mounts]
    return json.dumps(adapted, separators=(",", ":")).encode()


def without_mounts(spec: Json, names: Collection[str], has_place: Callable[[str], bool]) -> Json:
    """`spec` without the mounts of the files `names` at places that there are not."""
    mounts = spec.get("mounts")
    if not isinstance(mounts, list):
        return spec
    sources = {f"{FILE_SOURCE_PREFIX}{name}" for name in names}
    kept = [
        mount
        for mount in mounts
        if not (isinstance(mount, dict) and mount.get("source") in sources) or has_place(str(mount.get("destination")))
    ]
    return {**spec, "mounts": kept}


def process_for_crun(process: Json, size: tuple[int, int] | None) -> bytes:
    """An OCI Process; its terminal has `size`, width and height in characters, from its very start."""
    if size is not None:
        process = {**process, "consoleSize": {"width": size[0], "height": size[1]}}
    return json.dumps(process, separators=(",", ":")).encode()


def memory_limit(resources: Json) -> int:
    """The memory limit of an OCI LinuxResources in bytes; 0 where it sets none. Raises RequestError."""
    limit = _section(resources, "memory").get("limit")
    if limit is None or (isinstance(limit, int) and limit < 0):
        return 0
    if isinstance(limit, bool) or not isinstance(limit, int) or limit == 0:
        raise RequestError(f"memory.limit of the resources is {limit!r}, not a number of bytes")
    return limit


def wants_terminal(process: JsonValue) -> bool:
    """Whether an OCI Process asks for a terminal."""
    return isinstance(process, dict) and process.get("terminal") is True


def objects(holder: Json, key: str) -> list[Json]:
    """The list of objects at `key`, or an empty one. Raises RequestError where something else stands there."""
    value = holder.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise RequestError(f"{key} of the specification is not a list")
    found = [item for item in value if isinstance(item, dict)]
    if len(found) != len(value):
        raise RequestError(f"{key} of the specification holds something that is not an object")
    return found


def _section(spec: Json, key: str) -> Json:
    value = spec.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RequestError(f"{key} of the specification is not an object")
    return value


def _mount(entry: JsonValue, files: Mapping[str, str], share: str) -> JsonValue:
    if not isinstance(entry, dict):
        raise RequestError("mounts of the specification holds something that is not an object")
    source = entry.get("source")
    if isinstance(source, str) and source.startswith(VOLUME_SOURCE_PREFIX):
        name = source.removeprefix(VOLUME_SOURCE_PREFIX)
        if not share or safe_name(name) != name:
            raise RequestError(f"the mount at {entry.get('destination')} names the volume {name!r}, which is not there")
        return {**entry, "source": f"{share}/{name}"}
    if not isinstance(source, str) or not source.startswith(FILE_SOURCE_PREFIX):
        return entry
    name = source.removeprefix(FILE_SOURCE_PREFIX)
    if name not in files:
        raise RequestError(f"the mount at {entry.get('destination')} names the file {name!r}, which was not sent")
    return {**entry, "source": files[name]}
