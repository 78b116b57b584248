"""Kernel settings named `net.*` of a container: the machine's own network is the container's, so vminitd sets them.

crun refuses them without a network namespace of its own. All others it sets itself, and knows which it may.
"""

import re
from collections.abc import Mapping

from vminitd.errors import RequestError
from vminitd.spec import Json

_DIRECTORY = "/proc/sys"
# Dots part the components; those with something else in them, or none, could name other files.
_NAME = re.compile(r"net(\.[A-Za-z0-9_-]+)+")
# Of a setting, below the directory; an interface's name is a part of some.
_PATH = re.compile(r"net(/(?!\.\.?(/|$))[^/\0]+)+")
_AS_PATH = str.maketrans("./", "/.")


def without_network(spec: Json) -> tuple[Json, dict[str, str]]:
    """`spec` without its settings of the network, and those. Raises RequestError for what is no name or no text."""
    linux = spec.get("linux")
    settings = linux.get("sysctl") if isinstance(linux, dict) else None
    if not isinstance(linux, dict) or not isinstance(settings, dict):
        return spec, {}
    network: dict[str, str] = {}
    for name, value in settings.items():
        if not name.startswith("net."):
            continue
        if not _NAME.fullmatch(name) or not isinstance(value, str):
            raise RequestError(f"the sysctl {name!r} cannot be set to {value!r}")
        network[name] = value
    kept: Json = {name: value for name, value in settings.items() if name not in network}
    return {**spec, "linux": {**linux, "sysctl": kept}}, network


def apply(settings: Mapping[str, str], directory: str = _DIRECTORY) -> None:
    """Set them. Raises RequestError, which names the one that the kernel does not have or take.

    A slash in a name stands for a dot in one of its parts, as in sysctl(8): "net.ipv4.conf.eth0/100.rp_filter".
    """
    for name, value in settings.items():
        path = name.translate(_AS_PATH)
        if not _PATH.fullmatch(path):
            raise RequestError(f"the sysctl {name!r} is none of the network's")
        try:
            with open(f"{directory}/{path}", "r+b", buffering=0) as file:
                file.write(value.encode())
        except OSError as error:
            raise RequestError(f"the sysctl {name} cannot be set to {value!r}: {error.strerror}") from error
