"""Where a container's network comes from. Pure.

Kubernetes and `ctr run --cni` make a network namespace, have CNI connect it, and name it in the
specification. nerdctl and docker name none, and have hooks that connect whatever namespace the
task's pid is in. Who does neither gets the network of the configuration.
"""

import enum
from dataclasses import dataclass
from typing import Final

from shim.errors import SpecError
from shim.spec import Json, objects, section

# What network.name is where there is to be no network.
NO_NETWORK: Final = "none"


class Way(enum.Enum):
    """Who makes the network."""

    # Nobody: a loopback interface is all there is.
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


def plan(document: Json, *, hooked: bool, network: str) -> Plan:
    """The plan for a specification that has a network namespace, of whatever kind.

    `hooked` says that it has hooks that run in Create; `network` is network.name. Raises SpecError.
    """
    for namespace in objects(section(document, "linux"), "namespaces"):
        if namespace.get("type") != "network" or not (path := namespace.get("path")):
            continue
        if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
            raise SpecError(f"the container is to join the network namespace {path!r}: that is no absolute path")
        return Plan(Way.GIVEN, path=path)
    if hooked:
        return Plan(Way.HOOKS)
    return Plan(Way.NONE) if network == NO_NETWORK else Plan(Way.CONFIGURED, name=network)
