"""Where a container's network comes from. Pure.

Kubernetes makes a network namespace, has CNI connect it, and names it in the specification.
nerdctl names none, and has hooks of Create that connect whatever namespace the task's pid is in.
Others (`ctr run --cni`, docker) do that themselves between Create and Start, of which nobody knows
in Create; only docker's namespace tells. Who does none of it gets the network of the configuration.
"""

import enum
from dataclasses import dataclass
from typing import Final

from shim.errors import SpecError
from shim.spec import Json, objects, section

# Where docker has its containers (daemon/config/config.go, DefaultContainersNamespace). Since version 28 it connects
# them between Create and Start, and with `--network none` not at all.
_DOCKER: Final = "moby"
# What network.name is where there is to be no network.
NO_NETWORK: Final = "none"


class Way(enum.Enum):
    """Who makes the network."""

    # Nobody, or the client before Start.
    NONE = enum.auto()
    # Somebody has made it, in a namespace that the specification names.
    GIVEN = enum.auto()
    # Hooks of Create do, in a namespace that we make.
    HOOKS = enum.auto()
    # We do, by CNI, in a namespace that we make.
    CONFIGURED = enum.auto()


@dataclass(frozen=True, slots=True)
class Plan:
    """`path` is the namespace that was given; `name` the network of the configuration; empty otherwise."""

    way: Way
    path: str = ""
    name: str = ""


def plan(document: Json, *, hooked: bool, namespace: str, network: str) -> Plan:
    """The plan for a specification that has a network namespace, of whatever kind.

    `hooked` says that it has hooks that run in Create; `namespace` is containerd's, `network` network.name.
    Raises SpecError.
    """
    for item in objects(section(document, "linux"), "namespaces"):
        if item.get("type") != "network" or not (path := item.get("path")):
            continue
        if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
            raise SpecError(f"the container is to join the network namespace {path!r}: that is no absolute path")
        return Plan(Way.GIVEN, path=path)
    if hooked:
        return Plan(Way.HOOKS)
    if namespace == _DOCKER:
        return Plan(Way.NONE)
    return Plan(Way.NONE) if network == NO_NETWORK else Plan(Way.CONFIGURED, name=network)
