"""The OCI runtime specification: what the host must refuse, and what the guest gets.

The specification in the bundle is written for a container on the host. In a machine of
its own some of it means nothing (cgroup paths, security labels of the host), some of it
is done by the machine itself (the network namespace), and some cannot be given at all (the
host's own namespaces). Nothing is dropped that would make the container less confined: what
would, or what it could not do without, is refused by name.

Pure, but for a look at what the sources of its mounts are (shim/mounts/).
https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md
"""

import copy
import json
import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shim import cpuset, privileged, user_namespace
from shim.errors import SpecError, UnsupportedError
from shim.json_types import Json, JsonValue
from shim.mounts import FILE_SOURCE_PREFIX, FILES_LIMIT, NAMES, BlockVolume, HostFile, Volume, classify, devices

__all__ = (
    "FILES_LIMIT",
    "FILE_SOURCE_PREFIX",
    "HOOKS_IN_THE_CONTAINER",
    "SPEC_LIMIT",
    "GuestSpec",
    "HostFile",
    "Json",
    "JsonValue",
    "OwnFile",
    "for_guest",
    "guest_resources",
    "load",
    "objects",
    "section",
)

# Bytes of the specification that go in the same message. A program takes no more than 2 MiB of arguments and
# environment (execve(2)).
SPEC_LIMIT: Final = 2 << 20
# The hooks whose programs lie in the container: crun runs them. All others are the host's (shim/hooks/).
HOOKS_IN_THE_CONTAINER: Final = "startContainer"

# A process of the guest kernel's own can only be joined, or shared, with the guest.
_NAMESPACES_OF_THE_HOST: Final = {
    "mount": "the host's mounts",
    "network": "the host's network",
    "pid": "the host's processes",
    "ipc": "the host's IPC objects",
}
# Character devices that the guest kernel has under the same numbers as the host's.
_SAME_IN_THE_GUEST: Final = (
    [1, 3],  # null
    [1, 5],  # zero
    [1, 7],  # full
    [1, 8],  # random
    [1, 9],  # urandom
    [5, 0],  # tty
    [5, 2],  # ptmx
    [10, 200],  # net/tun
    [10, 229],  # fuse
)


@dataclass(frozen=True, slots=True)
class OwnFile:
    """A small file that the host has not, and the container sees at `destination`. We say later what is in it."""

    name: str
    destination: str


@dataclass(frozen=True, slots=True)
class GuestSpec:
    """The specification for the guest, as JSON, and what its mounts name."""

    json: bytes
    files: tuple[HostFile, ...]
    own_files: tuple[OwnFile, ...] = ()
    volumes: tuple[Volume, ...] = ()
    block_volumes: tuple[BlockVolume, ...] = ()


def load(bundle: Path) -> Json:
    """Read config.json of a bundle. Raises SpecError where it is missing or no JSON object."""
    path = bundle / "config.json"
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise SpecError(f"{path}: not JSON: {error}") from error
    if not isinstance(document, dict):
        raise SpecError(f"{path}: not a JSON object")
    return document


def for_guest(
    spec: Json, *, terminal: bool, vcpus: int = 1, names: bool = False, bundle: Path = Path("/")
) -> GuestSpec:
    """What crun in the guest, a machine with so many vCPUs, is to be given for `spec`.

    Sources of bind mounts that are no whole paths are below `bundle`. With `names`, /etc/hosts, /etc/hostname and
    /etc/resolv.conf are mounted where `spec` mounts nothing at that place. Blocks while it looks at sources. Raises
    SpecError for what a virtual machine cannot give, UnsupportedError for what qemubox cannot do yet; each names the
    part of the specification.
    """
    guest = copy.deepcopy(spec)
    process = section(guest, "process")
    linux = section(guest, "linux")
    if bool(process.get("terminal", False)) != terminal:
        raise SpecError(
            f"process.terminal is {process.get('terminal', False)}, but the task is created with {terminal}"
        )
    _refuse_what_is_missing(guest, linux)
    linux["namespaces"] = [*_guest_namespaces(linux)]
    user_namespace.check(linux)
    linux["resources"] = guest_resources(section(linux, "resources"), vcpus)
    own_devices = _take_hosts_devices(linux)
    disks = _take_disks(linux)
    linux["devices"] = [*_guest_devices(linux), *own_devices]
    found = classify([*objects(guest, "mounts"), *disks], bundle)
    own_files = tuple(_missing_names(found.mounts)) if names else ()
    guest["mounts"] = [*found.mounts, *(_own_mount(file) for file in own_files)]
    # The guest kernel has neither AppArmor nor SELinux, and the host's cgroup tree is not the guest's. Annotations
    # named run.oci.* would steer crun, and whoever sets a container's annotations must not.
    user_namespace.open_network(linux, process)
    hooks = objects(section(guest, "hooks"), HOOKS_IN_THE_CONTAINER)
    for holder, keys in (
        (guest, ("annotations", "hooks")),
        (process, ("apparmorProfile", "selinuxLabel")),
        (linux, ("mountLabel", "cgroupsPath")),
    ):
        for key in keys:
            holder.pop(key, None)
    guest["process"], guest["linux"] = process, linux
    if hooks:
        guest["hooks"] = {HOOKS_IN_THE_CONTAINER: [*hooks]}
    return GuestSpec(
        json=_encoded(guest),
        files=tuple(found.files),
        own_files=own_files,
        volumes=tuple(found.volumes),
        block_volumes=tuple(found.block_volumes),
    )


def _encoded(guest: Json) -> bytes:
    document = json.dumps(guest, separators=(",", ":")).encode()
    if len(document) > SPEC_LIMIT:
        raise SpecError(
            f"the specification has {len(document)} bytes for the guest, and {SPEC_LIMIT} at most go in",
            hint="shorten the container's arguments, environment or list of mounts",
        )
    return document


def section(holder: Json, key: str) -> Json:
    """The object at `key`, or an empty one. Raises SpecError where something else stands there."""
    value = holder.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SpecError(f"{key} of the specification is {value!r}, not an object")
    return value


def objects(holder: Json, key: str) -> list[Json]:
    """The list of objects at `key`, or an empty one. Raises SpecError where something else stands there."""
    value = holder.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise SpecError(f"{key} of the specification is {value!r}, not a list")
    found: list[Json] = []
    for item in value:
        if not isinstance(item, dict):
            raise SpecError(f"{key} of the specification holds {item!r}, not an object")
        found.append(item)
    return found


def _refuse_what_is_missing(guest: Json, linux: Json) -> None:
    wishes: tuple[tuple[str, object, str], ...] = (
        ("linux.intelRdt", linux.get("intelRdt"), "the guest has no such hardware"),
        (
            "linux.seccomp.listenerPath",
            section(linux, "seccomp").get("listenerPath"),
            "a seccomp agent on the host cannot serve a process in the guest",
        ),
        ("linux.netDevices", linux.get("netDevices"), "moving host network devices is not supported"),
        (
            f"linux.rootfsPropagation {linux.get('rootfsPropagation')}",
            linux.get("rootfsPropagation") in ("shared", "rshared"),
            "mounts of a virtual machine cannot appear on the host",
        ),
    )
    for name, value, why in wishes:
        if value:
            raise UnsupportedError(f"the specification has {name}: {why}")


def _guest_namespaces(linux: Json) -> list[Json]:
    """The namespaces that crun makes in the guest. The machine itself is the network namespace."""
    asked = {str(item.get("type")): item for item in objects(linux, "namespaces")}
    for kind, what in _NAMESPACES_OF_THE_HOST.items():
        if kind not in asked:
            raise SpecError(
                f"the container asks for {what} (no {kind} namespace), which a virtual machine cannot give",
                hint=f"run it with a {kind} namespace of its own, or with another runtime",
            )
    kept: list[Json] = []
    for kind, item in asked.items():
        path = item.get("path")
        if kind == "network":  # one with a path is led into the machine (shim/network/)
            continue
        if path:
            raise SpecError(
                f"the container asks to join the {kind} namespace {path}, which is the host's and not the machine's",
                hint="give it a namespace of its own",
            )
        kept.append({"type": kind})
    return kept


def _take_hosts_devices(linux: Json) -> tuple[Json, ...]:
    """What a privileged container gets in the place of the host's devices, which go out of `linux`; else nothing."""
    resources = section(linux, "resources")
    rules: list[JsonValue] = [*objects(resources, "devices")]
    if not privileged.allows_all(rules):
        return ()
    named = privileged.asked_by_name(objects(linux, "devices"), rules)
    linux["devices"] = [*named]
    places = {device.get("path") for device in named}
    return tuple(device for device in privileged.DEVICES if device["path"] not in places)


def _take_disks(linux: Json) -> list[Json]:
    """The block devices among the devices, as mounts of raw disks. Takes them, and their rules, out of `linux`."""
    asked = objects(linux, "devices")
    resources = section(linux, "resources")
    rules: list[JsonValue] = [*objects(resources, "devices")]
    disks = devices.as_mounts(asked, rules)
    if disks:
        linux["devices"] = [device for device in asked if device.get("type") != "b"]
        linux["resources"] = {**resources, "devices": devices.without_rules(rules, asked)}
    return disks


def _guest_devices(linux: Json) -> list[Json]:
    kept = []
    for device in objects(linux, "devices"):
        kind, major, minor = device.get("type"), device.get("major"), device.get("minor")
        if kind not in ("c", "u") or [major, minor] not in _SAME_IN_THE_GUEST:
            raise SpecError(
                f"the container asks for the device {device.get('path')} ({kind} {major}:{minor}),"
                " which is the host's and not the machine's"
            )
        kept.append(device)
    return kept


def guest_resources(resources: Json, vcpus: int) -> Json:
    """Limits that mean the same in the guest, a machine with so many vCPUs.

    A set of the host's CPUs becomes that of the vCPUs. Those that name disks, network classes or huge pages of the host
    mean nothing there and are left out (docs/limitations.md); none of them keeps a container in.
    """
    kept: Json = {}
    for key, value in resources.items():
        if key == "cpu" and isinstance(value, dict):
            same = {name: v for name, v in value.items() if name not in ("cpus", "mems")}
            kept[key] = {**same, **cpuset.in_guest(value, vcpus)}
        elif key == "blockIO" and isinstance(value, dict):
            kept[key] = {name: value[name] for name in ("weight",) if name in value}
        elif key not in ("network", "rdma", "hugepageLimits"):
            kept[key] = value
    return kept


def _missing_names(mounts: list[Json]) -> list[OwnFile]:
    """Those of NAMES that no mount stands for; a mount's place may be written in any way."""
    there = {posixpath.normpath("/" + str(mount.get("destination")).lstrip("/")) for mount in mounts}
    return [OwnFile(f"own-{posixpath.basename(name)}", name) for name in NAMES if name not in there]


def _own_mount(file: OwnFile) -> Json:
    return {
        "destination": file.destination,
        "type": "bind",
        "source": f"{FILE_SOURCE_PREFIX}{file.name}",
        "options": ["bind", "rw"],
    }
