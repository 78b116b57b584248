"""What containers, networks and interfaces may be called: the rules of libcni, which plugins enforce too.

libcni's pkg/utils: ValidateContainerID, ValidateNetworkName, ValidateInterfaceName.
"""

import re
from collections.abc import Iterable

from cni.errors import ArgumentError, ConfigError

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
# IFNAMSIZ without the zero at its end.
_INTERFACE_BYTES_MAX = 15
_RULE = "letters, digits, '_', '.' and '-', and a letter or digit first"


def check_container_id(container_id: str) -> None:
    """Raise ArgumentError for what no plugin takes as CNI_CONTAINERID."""
    if not _NAME.fullmatch(container_id):
        raise ArgumentError(f"the container id {container_id!r} cannot be used with CNI: it may have {_RULE}")


def check_network_name(name: str, source: str) -> None:
    """Raise ConfigError for what cannot be a network's name."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{source}: the network name {name!r} is not allowed: it may have {_RULE}")


def check_interface_name(name: str) -> None:
    """Raise ArgumentError for what cannot be an interface's name."""
    length = len(name.encode(errors="surrogateescape"))
    if not 0 < length <= _INTERFACE_BYTES_MAX:
        raise ArgumentError(f"the interface name {name!r} has {length} bytes: it must have 1 to {_INTERFACE_BYTES_MAX}")
    if name in (".", "..") or any(letter in "/:\0" or letter.isspace() for letter in name):
        raise ArgumentError(f"the interface name {name!r} is not allowed: no '/', ':' or white space, not '.' or '..'")


def check_args(args: Iterable[tuple[str, str]]) -> None:
    """Raise ArgumentError for pairs that CNI_ARGS, `KEY=VALUE;KEY=VALUE`, has no way to say."""
    for key, value in args:
        if not key or "=" in key or any(letter in ";\0" for letter in key + value):
            raise ArgumentError(f"the CNI argument {key!r} = {value!r} cannot be told: no ';', and no '=' in a key")
