"""One container's place in one network, as its caller describes it and as the cache remembers it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cni.document import JsonValue
from cni.network import NetworkList
from cni.result import Result


@dataclass(frozen=True)
class Attachment:
    """What the plugins are told of a container: CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME, CNI_ARGS, runtimeConfig.

    `netns` is a path; it may be empty, or of something that is gone, for a DEL. `capabilities` are the arguments by
    the capabilities' names (CONVENTIONS.md: portMappings, ips, mac, dns, bandwidth …); each plugin is given those
    that its configuration declares.
    """

    container_id: str
    netns: str
    ifname: str
    args: tuple[tuple[str, str], ...] = ()
    capabilities: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def described(self) -> str:
        """For messages."""
        return f"container {self.container_id!r}, interface {self.ifname!r}"


@dataclass(frozen=True)
class CachedAttachment:
    """What an ADD has left in the cache: the network as it was then, and what was made, so far as it got.

    `result` is None where no plugin had come to its end.
    """

    network: NetworkList
    attachment: Attachment
    result: Result | None
