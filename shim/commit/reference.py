"""Names of images as docker and nerdctl read them: `web` is docker.io/library/web:latest.

Pure. The grammar is that of distribution's reference package: components of lower case, a registry before the first
slash if it has a dot or a port or is "localhost", a tag of at most 128 characters, 255 characters without the tag.
"""

import re
from typing import Final

from shim.errors import SpecError

_REGISTRY: Final = "docker.io"
_LIBRARY: Final = "library"
_TAG: Final = "latest"
_NAME_MAX: Final = 255
_HOST: Final = re.compile(
    r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*"
    r"(?::[0-9]+)?|\[[a-fA-F0-9:]+\](?::[0-9]+)?"
)
_COMPONENT: Final = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAGGED: Final = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_ID: Final = re.compile(r"[a-f0-9]{64}")


def full_name(name: str) -> str:
    """The whole name, with registry and tag. Raises SpecError for what is none, or names a content by its digest."""
    if "@" in name:
        raise SpecError(f"image name {name!r}: a digest cannot be given to an image", hint="give a tag")
    path, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:  # no colon, or that of a port
        path, tag = name, _TAG
    host, slash, rest = path.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost" or host != host.lower()):
        host, rest = _REGISTRY, path
    if host == _REGISTRY and "/" not in rest:
        if _ID.fullmatch(rest):
            raise SpecError(f"image name {name!r}: 64 hexadecimal digits are an image's id, not a name")
        rest = f"{_LIBRARY}/{rest}"
    valid = (
        _HOST.fullmatch(host)
        and all(_COMPONENT.fullmatch(component) for component in rest.split("/"))
        and _TAGGED.fullmatch(tag)
        and len(f"{host}/{rest}") <= _NAME_MAX
    )
    if not valid:
        raise SpecError(
            f"image name {name!r}: is none", hint="use lower case, as in registry.example/team/name:tag or name:tag"
        )
    return f"{host}/{rest}:{tag}"
