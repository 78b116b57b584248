"""containerd's configuration: whether it can be read, and has an entry for the CRI, which alone needs one.

containerd, cmd/containerd/server/config/config.go: a file without a version is of version 1; imports are relative to
the file that has them, those with a * are patterns, and none may be of a higher version than the first file. Where the
plugins of the CRI stand depends on the version.
"""

import glob
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shim.errors import ConfigError
from shim.version import RUNTIME_NAME

DEFAULT: Final = "/etc/containerd/config.toml"
_NEWEST: Final = 4
_CRI_2: Final = "io.containerd.grpc.v1.cri"
_CRI_3: Final = "io.containerd.cri.v1.runtime"
# By the version of the file.
_PLUGIN: Final = {1: ("cri", _CRI_2), 2: (_CRI_2,), 3: (_CRI_3,), 4: (_CRI_3,)}
_FILES_MAX: Final = 200

Table = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class File:
    """One file, as it was read."""

    path: str
    version: int
    table: Table


@dataclass(frozen=True, slots=True)
class Entry:
    """A runtime of the CRI that is ours: its name, which is a RuntimeClass's handler, and the file that has it.

    `misplaced`: where it stands, a file of its version is not read.
    """

    name: str
    path: str
    misplaced: str = ""


def read(path: Path, root: Path = Path("/")) -> list[File]:
    """The file and what it imports, in containerd's order. Raises ConfigError naming file and line, FileNotFoundError
    where the first file is not there.
    """
    found: list[File] = []
    pending = [str(path)]
    while pending:
        name = pending.pop(0)
        if name in (file.path for file in found):
            continue
        if len(found) >= _FILES_MAX:
            raise ConfigError(f"{path}: imports more than {_FILES_MAX} files")
        file = _file(name, imported=bool(found))
        if found and file.version > found[0].version:
            raise ConfigError(
                f"{name}: its version is {file.version}, and that of {found[0].path}, which imports it, is lower: "
                f"{found[0].version}",
                hint="containerd does not start so: give both the same version",
            )
        found.append(file)
        pending += _imports(file, root)
    return found


def _file(name: str, *, imported: bool) -> File:
    try:
        table = tomllib.loads(Path(name).read_text())
    except FileNotFoundError:
        if not imported:
            raise
        raise ConfigError(f"{name}: is imported, and not there", hint="containerd does not start so") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: not TOML: {error}", hint="containerd does not start so: mend the line") from error
    version = table.get("version", 1)
    if not isinstance(version, int) or not 0 <= version <= _NEWEST:
        raise ConfigError(f"{name}: version = {version!r}: there are 1 to {_NEWEST}")
    return File(name, version or 1, table)


def _imports(file: File, root: Path) -> Iterator[str]:
    listed = file.table.get("imports", [])
    for item in listed if isinstance(listed, list) else ():
        path = os.path.normpath(os.path.join(os.path.dirname(file.path), str(item)))
        if os.path.isabs(str(item)) and root != Path("/"):
            path = os.path.normpath(f"{root}{item}")
        if "*" in path:
            yield from sorted(glob.glob(path))
        else:
            yield path


def cri_is_off(files: list[File]) -> bool:
    """Whether the CRI's plugin is among those that are not loaded."""
    for file in files:
        listed = file.table.get("disabled_plugins", [])
        if isinstance(listed, list) and {"cri", _CRI_2, _CRI_3} & {str(name) for name in listed}:
            return True
    return False


def lost_in_1(files: list[File]) -> list[str]:
    """The files whose section of the CRI a containerd before 2.0 loses: it takes that of the last one whole."""
    having = [file.path for file in files if any(_table(file.table, "plugins", name) for name in _PLUGIN[file.version])]
    return having[:-1]


def entries(files: list[File]) -> list[Entry]:
    """All runtimes of the CRI that are ours, where each file's version has them and elsewhere."""
    found = []
    for file in files:
        right = _PLUGIN[file.version]
        for plugin in ("cri", _CRI_2, _CRI_3):
            runtimes = _table(file.table, "plugins", plugin, "containerd", "runtimes")
            for name, runtime in runtimes.items():
                if isinstance(runtime, dict) and _is_ours(runtime):
                    found.append(Entry(name, file.path, "" if plugin in right else plugin))
    return found


def _is_ours(runtime: Table) -> bool:
    return runtime.get("runtime_type") == RUNTIME_NAME or "qemubox" in os.path.basename(
        str(runtime.get("runtime_path", ""))
    )


def _table(table: Table, *keys: str) -> Table:
    """The table below these keys; an empty one where there is none."""
    for key in keys:
        below = table.get(key)
        if not isinstance(below, dict):
            return {}
        table = below
    return table


def snippet(version: int) -> str:
    """What to add to a file of that version, in one line."""
    plugin = _PLUGIN[version][-1 if version > 1 else 0]
    return f'[plugins."{plugin}".containerd.runtimes.qemubox] runtime_type = "{RUNTIME_NAME}"'
