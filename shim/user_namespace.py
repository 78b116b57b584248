"""A container's user namespace: crun makes it in the guest, with the numbers that it would have on the host.

So the root file system has the owners that the snapshotter gave it, and what the container writes has those that it
would have with runc. The network is the machine's own, which belongs to no such namespace: capabilities over the
network that the container's root has reach nothing there. What most programs need them for is opened by settings.

Pure. https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#user-namespace-mappings
"""

from typing import Final

from shim.errors import SpecError
from shim.json_types import Json, JsonValue

# By the capability that a program has it by in a network namespace of its own (capabilities(7), ip(7), icmp(7)).
_SETTINGS: Final = {
    "CAP_NET_BIND_SERVICE": ("net.ipv4.ip_unprivileged_port_start", "0"),
    "CAP_NET_RAW": ("net.ipv4.ping_group_range", "0 2147483647"),
}
_MAPPINGS: Final = ("uidMappings", "gidMappings")
_MOST_IDS: Final = 1 << 32


def is_wanted(linux: Json) -> bool:
    """Whether the container gets a user namespace."""
    namespaces = linux.get("namespaces")
    found = namespaces if isinstance(namespaces, list) else []
    return any(isinstance(item, dict) and item.get("type") == "user" for item in found)


def check(linux: Json) -> None:
    """Raises SpecError for a user namespace without mappings, mappings without one, and what is no mapping."""
    for key in _MAPPINGS:
        mappings = linux.get(key)
        if is_wanted(linux) != bool(mappings):
            there = "a user namespace, and no" if is_wanted(linux) else "no user namespace for its"
            raise SpecError(f"the specification has {there} linux.{key}", hint="give it both, or neither")
        for mapping in mappings if isinstance(mappings, list) else [mappings] if mappings else []:
            if not _is_mapping(mapping):
                raise SpecError(
                    f"linux.{key} of the specification holds {mapping!r}, which maps no user numbers",
                    hint="each has containerID, hostID and a size of at least 1",
                )


def open_network(linux: Json, process: Json) -> None:
    """Give a container with a user namespace what its capabilities would give it in a network namespace of that."""
    if not is_wanted(linux):
        return
    capabilities = process.get("capabilities")
    bounding = capabilities.get("bounding") if isinstance(capabilities, dict) else None
    settings: Json = {}
    for capability, (name, value) in _SETTINGS.items():
        if isinstance(bounding, list) and capability in bounding:
            settings[name] = value
    own = linux.get("sysctl")
    if settings:
        linux["sysctl"] = {**settings, **(own if isinstance(own, dict) else {})}


def _is_mapping(mapping: JsonValue) -> bool:
    if not isinstance(mapping, dict):
        return False
    numbers = [mapping.get(key) for key in ("containerID", "hostID", "size")]
    if any(isinstance(number, bool) or not isinstance(number, int) for number in numbers):
        return False
    inside, outside, size = (number for number in numbers if isinstance(number, int))
    return min(inside, outside) >= 0 and 0 < size <= _MOST_IDS - max(inside, outside)
