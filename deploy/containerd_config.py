"""Tells a containerd's CRI of the runtime qemubox, in the configuration that is there, and takes it out again.

    containerd_config.py add FILE --output NEW
    containerd_config.py remove FILE --output NEW

FILE is the main configuration, or, for `remove`, the one that `add` has named. Nothing is changed here: the new content
is written into NEW, and the path of the file that it is for is printed; where nothing is to be done, nothing is. What
install.sh has to tell people goes to standard error. The exit status is 1 after one line that says what is wrong.

The text of a file stays as it is: the runtime's table is put behind it, between two lines that say whose it is, so that
taking it out gives the file back byte by byte. What comes of it is read again before it is handed out, by tomllib and,
where there is a containerd, by `containerd config dump`: nothing but the runtime may be new in it.

How containerd (1.6 to 2.3) reads its files, which decides where the table goes: the table of a plugin in a file that is
imported replaces that of the file which imports it, in most versions as a whole (server/config/config.go, mergeConfig); and before 2.0 a table `runtimes` replaces the default one, with runc in it.

Only the standard library: it runs with the system's Python, or the release's, before anything is installed.
"""

import argparse
import glob
import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

Table = dict[str, object]

RUNTIME_TYPE: Final = "io.containerd.qemubox.v1"
_BEGIN: Final = "# >>> qemubox: by its install.sh, which takes it out with --uninstall"
_END: Final = "# <<< qemubox"
# Behind the first line where the file did not end with a newline.
_JOINED: Final = " (on a line of its own)"
# By the version of the configuration; containerd 2 reads those of version 2 under the old name.
_PLUGINS: Final = {1: "cri", 2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime", 4: "io.containerd.cri.v1.runtime"}
_ENTRY: Final[Table] = {
    "runtime_type": RUNTIME_TYPE,
    "privileged_without_host_devices": True,
    "pod_annotations": ["io.qemubox.*"],
    "container_annotations": ["io.qemubox.*"],
}
_DUMP_S: Final = 30


class Refusal(Exception):
    """What keeps the file from being changed, in one line."""


@dataclass(frozen=True)
class File:
    """One file of the configuration as it was read. `path` has no symbolic links."""

    path: Path
    text: str
    table: Table

    @property
    def version(self) -> int:
        """Of its format; a file that does not say is of the first."""
        version = self.table.get("version", 1)
        if not isinstance(version, int) or version not in _PLUGINS:
            raise Refusal(f"{self.path}: version = {version!r}: known are {', '.join(map(str, _PLUGINS))}")
        return version


def read(path: Path) -> File:
    """Read one file. Raises Refusal."""
    try:
        real = path.resolve(strict=True)
        text = real.read_bytes().decode()
        return File(real, text, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise Refusal(f"{path}: not TOML, containerd could not read it either: {error}: mend that line") from None
    except UnicodeDecodeError as error:
        raise Refusal(f"{path}: not UTF-8 at byte {error.start}") from None
    except (OSError, RuntimeError) as error:
        raise Refusal(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def read_all(main: Path) -> list[File]:
    """The file and those it imports, in the order in which containerd merges them, each once. Raises Refusal."""
    pending, found = [main], list[File]()
    while pending:
        path = pending.pop(0)
        if any(file.path == path.resolve() for file in found):
            continue
        file = read(path)
        found.append(file)
        imports = file.table.get("imports", [])
        if not isinstance(imports, list):
            raise Refusal(f"{path}: imports = {imports!r}: must be a list")
        for name in map(str, imports):
            named = os.path.normpath(os.path.join(path.parent, name))
            pending.extend(map(Path, sorted(glob.glob(named)) if "*" in name else [named]))
    return found


def _at(table: object, *keys: str) -> object:
    for key in keys:
        if not isinstance(table, dict):
            return None
        table = table.get(key)
    return table


def cri_of(file: File, version: int) -> str:
    """The name by which the file configures the CRI; empty where it does not."""
    names = [_PLUGINS[version], *(name for name in _PLUGINS.values() if "." in name)]
    return next((name for name in names if _at(file.table, "plugins", name) is not None), "")


def is_disabled(files: list[File]) -> bool:
    """Whether the CRI is switched off, as in the configuration that Docker's package of containerd brings."""
    off = [name for file in files for name in (_listed(file.table.get("disabled_plugins")))]
    return bool(set(off) & set(_PLUGINS.values()))


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def rendered(table: Table, keys: tuple[str, ...]) -> str:
    """A table, and those in it, as TOML. Keys are quoted where they must be."""
    header = ".".join(key if key.replace("-", "_").isidentifier() else _text(key) for key in keys)
    lines = [f"[{header}]"]
    lines += [f"  {key} = {_value(value)}" for key, value in table.items() if not isinstance(value, dict)]
    blocks = [rendered(value, (*keys, key)) for key, value in table.items() if isinstance(value, dict)]
    return "\n".join([*lines, *blocks])


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return _text(str(value))


def _text(value: str) -> str:
    escaped = "".join(f"\\u{ord(c):04x}" if ord(c) < 32 or ord(c) == 127 else c for c in value.replace("\\", "\\\\").replace('"', '\\"'))
    return f'"{escaped}"'


def with_block(text: str, block: str) -> str:
    """The text with the block behind it."""
    if text and not text.endswith("\n"):
        return f"{text}\n{_BEGIN}{_JOINED}\n{block}\n{_END}\n"
    return f"{text}{_BEGIN}\n{block}\n{_END}\n"


def without_block(text: str) -> str:
    """The text as it was before; the same text where there is no block in it. Raises Refusal for half a block."""
    if _BEGIN not in text:
        return text
    before, _, rest = text.partition(_BEGIN)
    inside, end, after = rest.partition(f"{_END}\n")
    if not end:
        raise Refusal(f'there is a line "{_BEGIN}", but no "{_END}" behind it: take out what is qemubox\'s by hand')
    if inside.startswith(_JOINED) and before.endswith("\n"):
        before = before[:-1] if not after else before
    return before + after


def add(main: Path) -> tuple[Path, str] | None:
    """The file to be changed, and its new content; None where nothing is to be done. Raises Refusal."""
    containerd = shutil.which("containerd")
    if not main.exists() and not main.is_symlink():
        version = 2 if containerd is None or _is_old(containerd) else 3
        files = [File(main, "", {"version": version})]
        preamble = f"version = {version}\n"
    else:
        files = read_all(main)
        preamble = ""
    if is_disabled(files):
        _say(f"the CRI is switched off in {main} (disabled_plugins): nothing to be told of the runtime; ctr, nerdctl and docker find it")
        return None
    version = files[0].version
    # What counts is the last table of the CRI, for it replaces those before it.
    target = next((file for file in reversed(files) if cri_of(file, version)), files[0])
    plugin = cri_of(target, version) or _PLUGINS[version]
    old = without_block(target.text)
    there = _at(tomllib.loads(old), "plugins", plugin, "containerd", "runtimes", "qemubox")
    if there is not None:
        if _at(there, "runtime_type") != RUNTIME_TYPE:
            raise Refusal(f"{target.path}: has another runtime named qemubox: {_at(there, 'runtime_type')!r}: give it another name")
        _say(f"{target.path} has the runtime already")
        return None
    keys = ("plugins", plugin, "containerd", "runtimes")
    blocks = [rendered(_ENTRY, (*keys, "qemubox"))]
    if not target.path.exists():
        new = with_block("", preamble + blocks[0])
    else:
        new = with_block(old, blocks[0])
    before = _dump(containerd, main, target.path, old if target.path.exists() else None)
    if before is not None:
        assert containerd is not None
        after = _check(containerd, main, target.path, new)
        lost = {name: value for name, value in _runtimes(before).items() if name not in _runtimes(after)}
        blocks += [rendered(value, (*keys, name)) for name, value in lost.items() if isinstance(value, dict)]
        new = with_block("" if not target.path.exists() else old, preamble + "\n".join(blocks))
        after = _check(containerd, main, target.path, new)
        _compare(before, after, target.path)
    elif version < 3 and _at(tomllib.loads(old), *keys) is None:
        # containerd is not here to be asked; before 2.0 a table of runtimes replaces the default one.
        blocks.append(rendered({"runtime_type": "io.containerd.runc.v2"}, (*keys, "runc")))
        new = with_block("" if not target.path.exists() else old, preamble + "\n".join(blocks))
    _parses(new, target.path)
    if new == target.text:
        return None
    _refuse_read_only(target.path)
    _say(f"the runtime qemubox goes into {target.path}:")
    for line in (preamble + "\n".join(blocks)).splitlines():
        _say(f"    + {line}")
    return target.path, new


def remove(path: Path) -> tuple[Path, str] | None:
    """The file without what `add` has put into it; None where that is not in it. Raises Refusal."""
    file = read(path)
    new = without_block(file.text)
    if new == file.text:
        return None
    _parses(new, file.path)
    return file.path, new


def _parses(text: str, path: Path) -> None:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Refusal(
            f"{path}: no table can be put behind it ({error}): its plugins are written as one value: add by hand"
            f' [plugins."…CRI…".containerd.runtimes.qemubox] with runtime_type = "{RUNTIME_TYPE}"'
        ) from None


def _is_old(containerd: str) -> bool:
    """Whether it is of before 2.0."""
    said = subprocess.run([containerd, "--version"], capture_output=True, text=True, check=False, timeout=_DUMP_S).stdout
    return any(word.removeprefix("v").startswith("1.") for word in said.split())


# In a mount namespace of its own the new file is where the old one is, so that its imports are found and nobody else
# sees it. Of a file that is not there yet there is nothing to be covered.
_COVER: Final = 'if [ -e "$2" ]; then mount --bind "$1" "$2"; shift 2; else new=$1; shift 2; set -- "$1" --config "$new" config dump; fi; exec "$@"'


def _dump(containerd: str | None, main: Path, path: Path, text: str | None) -> Table | None:
    """What containerd makes of the configuration with this text in `path`; None where it cannot be asked."""
    if containerd is None:
        return None
    new = Path(f"{_output}.check")
    new.write_text("version = 2\n" if text is None else text)
    words = ["unshare", "--mount", "sh", "-c", _COVER, "sh", new, path, containerd, "--config", main, "config", "dump"]
    if text is None:
        words = [containerd, "config", "default"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=_DUMP_S)
        if done.returncode != 0:
            _say(f"containerd config dump: {done.stderr.strip().splitlines()[-1:]}")
            return None
        return tomllib.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, tomllib.TOMLDecodeError) as error:
        _say(f"containerd cannot be asked what it makes of {main}: {error}")
        return None
    finally:
        new.unlink()


def _check(containerd: str, main: Path, path: Path, text: str) -> Table:
    _parses(text, path)
    dump = _dump(containerd, main, path, text)
    if dump is None:
        raise Refusal(f"{path}: containerd would not take it with the runtime in it (see above)")
    return dump


def _runtimes(dump: Table) -> Table:
    for name in _PLUGINS.values():
        found = _at(dump, "plugins", name, "containerd", "runtimes")
        if isinstance(found, dict):
            return found
    return {}


def _compare(before: Table, after: Table, path: Path) -> None:
    if _runtimes(after).pop("qemubox", None) is None:
        raise Refusal(f"{path}: containerd would not see the runtime in it; add it by hand where its CRI is configured")
    for dump in (before, after):
        dump.pop("imports", None)  # its own list of what it has read
    if different := [key for key in {*before, *after} if before.get(key) != after.get(key)]:
        raise Refusal(f"{path}: more than the runtime would be new for containerd ({', '.join(sorted(different))}): add it by hand")


def _refuse_read_only(path: Path) -> None:
    """Before anything else has been changed; what can be written to after all may still fail later."""
    place = path if path.exists() else path.parent
    while not place.exists():
        place = place.parent
    for each in (place, place if place.is_dir() else place.parent):
        if not os.access(each, os.W_OK) or os.statvfs(each).f_flag & os.ST_RDONLY:
            raise Refusal(f"{path}: {each} cannot be written to (read-only?): add the runtime where this file is made, or mount it writable")


def _say(line: str) -> None:
    print(f"containerd: {line}", file=sys.stderr)


_output = Path()


def main() -> int:
    """Do what the command line asks for; the answer is the exit status."""
    global _output
    parser = argparse.ArgumentParser(description="The runtime qemubox in a containerd's configuration.")
    parser.add_argument("action", choices=("add", "remove"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="where the new content goes")
    words = parser.parse_args()
    _output = words.output
    try:
        done = add(words.file) if words.action == "add" else remove(words.file)
    except Refusal as refusal:
        _say(str(refusal))
        return 1
    if done is not None:
        path, text = done
        _output.write_bytes(text.encode())
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
