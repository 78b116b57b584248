"""Network configurations: what a file says, and the one of a name among the files of a directory.

A list of plugins (`*.conflist`) or a single plugin (`*.conf`, `*.json`, which the specification had until 1.0.0 and
people still have). SPEC.md, section 1; libcni's conf.go. Unlike libcni's, `load` is not stopped by a broken file
that is none of its business, and takes no name that two files have.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cni import document
from cni.document import DocumentError, Json, JsonValue
from cni.errors import ConfigError, NetworkNotFound
from cni.names import check_network_name

# The versions that can be run, oldest first.
SUPPORTED = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
_LIST_SUFFIX = ".conflist"
_SUFFIXES = (_LIST_SUFFIX, ".conf", ".json")
# Far more than a configuration has; who puts a device or a core dump into the directory is told.
_BYTES_MAX = 4 << 20


@dataclass(frozen=True)
class Plugin:
    """One plugin of a network: its program's name, what it says that it can be told, and its whole configuration."""

    type: str
    capabilities: frozenset[str]
    conf: Json


@dataclass(frozen=True)
class NetworkList:
    """A network: the plugins that make it, in their order, and from where that is known.

    `raw` is the text of a list that says all of this, as it is kept in the cache of results. `source` is the file,
    for messages.
    """

    name: str
    cni_version: str
    plugins: tuple[Plugin, ...]
    disable_check: bool
    disable_gc: bool
    raw: bytes
    source: str

    @property
    def capabilities(self) -> frozenset[str]:
        """All that any of its plugins can be told by `Attachment.capabilities`."""
        return frozenset().union(*(plugin.capabilities for plugin in self.plugins))

    def at_least(self, version: str) -> bool:
        """Whether its version is this one of SUPPORTED, or newer."""
        return SUPPORTED.index(self.cni_version) >= SUPPORTED.index(version)


def parse(text: bytes, source: str) -> NetworkList:
    """The network that a text says, list or single plugin. Raises ConfigError, which names `source`."""
    try:
        return _network(document.load_object(text), text, source, [])
    except DocumentError as error:
        raise ConfigError(f"{source}: {error}") from error


def read(path: Path) -> NetworkList:
    """The network of one file, with the plugins in the directory beside it that has the network's name (CNI 1.1)."""
    source = str(path)
    try:
        text = _read(path)
        found = document.load_object(text)
        return _network(found, text, source, _plugins_beside(path, found))
    except DocumentError as error:
        raise ConfigError(f"{source}: {error}") from error


def load(conf_dir: Path, name: str) -> NetworkList:
    """The network `name` of the files in `conf_dir`.

    Raises ConfigError where its file is wrong or two files have the name, NetworkNotFound where none has; a file
    that cannot be understood is named there, since it may be the one.
    """
    found: list[NetworkList] = []
    broken: list[ConfigError] = []
    there: list[str] = []
    for path in _files(conf_dir, _SUFFIXES):
        try:
            network = read(path)
        except ConfigError as error:
            if _said_name(path) == name:
                raise
            broken.append(error)
            continue
        there.append(network.name)
        if network.name == name:
            found.append(network)
    if len(found) > 1:
        raise ConfigError(
            f"{len(found)} files configure a network {name!r}: {', '.join(network.source for network in found)}",
            hint="leave the name to one of them",
        )
    if found:
        return found[0]
    others = f"; there are {', '.join(sorted(there))}" if there else ""
    faults = "".join(f"; {error.message}" for error in broken)
    raise NetworkNotFound(
        f"no network {name!r} is configured in {conf_dir}{others}{faults}",
        hint=f"put its configuration there, as {name}{_LIST_SUFFIX}",
    )


def _network(found: Json, text: bytes, source: str, beside: list[Json]) -> NetworkList:
    name = document.text(found, "name")
    if not name:
        raise DocumentError("the network has no name")
    check_network_name(name, source)
    version = _version(found)
    listed = document.objects(found, "plugins")
    raw = text
    if "plugins" not in found and "type" in found:
        listed = [found]
        raw = document.dumps({"name": name, "cniVersion": version, "plugins": [found]})
    elif beside:
        listed = [*listed, *beside]
        raw = document.dumps(found | {"plugins": list[JsonValue](listed), "loadOnlyInlinedPlugins": True})
    if not listed:
        raise DocumentError(f"the network {name!r} has no plugins")
    return NetworkList(
        name=name,
        cni_version=version,
        plugins=tuple(_plugin(conf, f"plugins[{index}].") for index, conf in enumerate(listed)),
        disable_check=_switch(found, "disableCheck"),
        disable_gc=_switch(found, "disableGC"),
        raw=raw,
        source=source,
    )


def _plugin(conf: Json, where: str) -> Plugin:
    kind = document.text(conf, "type", where=where)
    if not kind or "/" in kind or "\0" in kind or kind in (".", ".."):
        raise DocumentError(f"{where}type is {kind!r}, and must be the name of a plugin's program")
    declared = document.mapping(conf, "capabilities", where=where)
    for name, value in declared.items():
        if not isinstance(value, bool):
            raise DocumentError(f"{where}capabilities.{name} is {document.kind(value)}, and must be true or false")
    return Plugin(kind, frozenset(name for name, value in declared.items() if value), conf)


def _version(found: Json) -> str:
    """The newest of those that it names and that we know: `cniVersions` came with 1.1.0."""
    said = document.text(found, "cniVersion")
    known = [version for version in (said, *document.texts(found, "cniVersions")) if version in SUPPORTED]
    if known:
        return max(known, key=SUPPORTED.index)
    if not said:
        raise DocumentError(f"there is no cniVersion, which means 0.1.0: it must be one of {', '.join(SUPPORTED)}")
    raise DocumentError(f"cniVersion is {said!r}, and must be one of {', '.join(SUPPORTED)}")


def _switch(found: Json, key: str) -> bool:
    """True or false, which people and libcni also write as texts."""
    value = found.get(key, False)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise DocumentError(f"{key} is {document.kind(value)}, and must be true or false")
    return value


def _plugins_beside(path: Path, found: Json) -> list[Json]:
    name = found.get("name")
    if not isinstance(name, str) or _switch(found, "loadOnlyInlinedPlugins") or "type" in found:
        return []
    check_network_name(name, str(path))
    plugins: list[Json] = []
    for file in _files(path.parent / name, (".conf",)):
        try:
            plugins.append(document.load_object(_read(file)))
        except DocumentError as error:
            raise ConfigError(f"{file}: {error}") from error
    return plugins


def _said_name(path: Path) -> JsonValue:
    """The name that a file has, if it can be told; one that nobody could read has none."""
    try:
        return document.load_object(_read(path)).get("name")
    except (DocumentError, ConfigError):
        return None


def _files(directory: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files with one of the suffixes: lists first, as libcni has it, each kind by name."""
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ConfigError(f"{directory} cannot be read: {error.strerror}") from error
    chosen = [name for name in names if os.path.splitext(name)[1] in suffixes]
    return [directory / name for name in sorted(chosen, key=lambda name: (not name.endswith(_LIST_SUFFIX), name))]


def _read(path: Path) -> bytes:
    """The bytes of a regular file. Raises ConfigError for what is none, or cannot be read, or is far too large."""
    try:
        # By an opener, as open() leaves a descriptor of another's open when it turns out to be a directory's.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            text = file.read(_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if len(text) > _BYTES_MAX:
        raise ConfigError(f"{path} has more than {_BYTES_MAX} bytes: that is no network configuration")
    return text
