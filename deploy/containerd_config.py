"""Tells a containerd's CRI of the runtime qemubox, in the configuration that is there, and takes it out again.

    containerd_config.py add FILE --output NEW
    containerd_config.py remove FILE --output NEW

FILE is the main configuration, or, for `remove`, the one that `add` has named. Nothing is changed here: the new content
is written into NEW, and the path of the file that it is for is printed; where nothing is to be done, nothing is. What
install.sh has to tell people goes to standard error. The exit status is 1 after one line that says what is wrong.

The text of a file stays as it is: the runtime's table is put behind it, between two lines that say whose it is, so that
taking it out gives the file back byte by byte. What comes of it is read again before it is handed out, by tomllib and,
where there is a containerd, by `containerd config dump`: nothing but the runtime may be new in it.

How containerd (1.6 to 2.3) reads its files decides where the table goes. The table of a plugin in a file that is
imported replaces that of the file which imports it, in most versions as a whole (server/config/config.go, mergeConfig).
And before 2.0 a table `runtimes` replaces the default one, with runc in it (tried with 1.6.20).

Only the standard library: it runs with the system's Python, or the release's, before anything is installed.
"""

import argparse
import glob
import json
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
_PLUGINS: Final = {
    1: "cri",
    2: "io.containerd.grpc.v1.cri",
    3: "io.containerd.cri.v1.runtime",
    4: "io.containerd.cri.v1.runtime",
}
_ENTRY: Final[Table] = {
    "runtime_type": RUNTIME_TYPE,
    "privileged_without_host_devices": True,
    "pod_annotations": ["io.qemubox.*"],
    "container_annotations": ["io.qemubox.*"],
}
_DUMP_S: Final = 30


class Refusal(Exception):
    """What keeps the file from being changed, in one line."""


class Unseen(Exception):
    """containerd would not see the runtime in a file, which the text names."""


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
        last = f"line {text.count(chr(10)) + 1}" if "end of document" in str(error) else "that line"
        raise Refusal(f"{path}: not TOML, containerd cannot read it either: {error}: mend {last}") from None
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
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # basic strings: JSON's, less DEL


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
    if main.exists() or main.is_symlink():
        files = read_all(main)
    else:
        files = [File(main, "", {"version": 2 if containerd is None or _is_old(containerd) else 3})]
    if is_disabled(files):
        _say(f"the CRI is switched off in {main} (disabled_plugins): nothing to be told; others need no telling")
        return None
    version = files[0].version
    # What counts is the last table of the CRI, for it replaces those before it; of files that this containerd does not
    # read after all (a pattern that is relative, before 2.0), none.
    candidates = [file for file in reversed(files) if cri_of(file, version)] or [files[0]]
    for number, target in enumerate(candidates):
        try:
            return _add_to(target, version, containerd, main)
        except Unseen as error:
            if number == len(candidates) - 1:
                raise Refusal(f"{error}; add it by hand where its CRI is configured") from None
    raise AssertionError("there is the main file at the least")


def _add_to(target: File, version: int, containerd: str | None, main: Path) -> tuple[Path, str] | None:
    keys = ("plugins", cri_of(target, version) or _PLUGINS[version], "containerd", "runtimes")
    old = without_block(target.text)
    there = _at(tomllib.loads(old), *keys, "qemubox")
    if there is None:
        new = with_block(old, "\n".join(_blocks(containerd, main, target, old, keys)))
        return None if new == target.text else _announced(target.path, old, new)
    if _at(there, "runtime_type") != RUNTIME_TYPE:
        raise Refusal(f"{target.path}: has another runtime of the name qemubox, {there!r}: rename or remove that")
    _say(f"{target.path} has the runtime already")
    return None


def _blocks(containerd: str | None, main: Path, target: File, old: str, keys: tuple[str, ...]) -> list[str]:
    """What goes behind the file: the runtime, and what it would have taken away. Raises Refusal, Unseen."""
    blocks = [rendered(_ENTRY, (*keys, "qemubox"))]
    if not target.path.exists():
        blocks.insert(0, f"version = {target.version}")

    def new() -> str:
        text = with_block(old, "\n".join(blocks))
        _parses(text, target.path)
        return text

    before = _dump(containerd, main, target.path, old)
    if containerd is not None and before is not None:
        lost = _runtimes(before).keys() - _runtimes(_dumped(containerd, main, target.path, new())).keys()
        blocks += [rendered(_table(_runtimes(before)[name]), (*keys, name)) for name in sorted(lost)]
        _compare(before, _dumped(containerd, main, target.path, new()), target.path)
    elif target.version < 3 and _at(tomllib.loads(old), *keys) is None:
        # There is nobody to be asked; before 2.0 a table of runtimes replaces the default one.
        blocks.append(rendered({"runtime_type": "io.containerd.runc.v2"}, (*keys, "runc")))
    new()
    return blocks


def _table(value: object) -> Table:
    assert isinstance(value, dict)
    return value


def _announced(path: Path, old: str, new: str) -> tuple[Path, str]:
    _refuse_read_only(path)
    _say(f"the runtime qemubox goes into {path}:")
    for line in new[len(old) :].splitlines():
        if not line.startswith("#"):
            _say(f"    + {line}")
    return path, new


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
    said = subprocess.run(
        [containerd, "--version"], capture_output=True, text=True, check=False, timeout=_DUMP_S
    ).stdout
    return any(word.removeprefix("v").startswith("1.") for word in said.split())


# In a mount namespace of its own the new file is where the old one is, so that its imports are found and nobody else
# sees it. Where there is none yet, there is nothing to be covered.
_COVER: Final = """
new=$1 path=$2 containerd=$3 main=$4
if [ -e "$path" ]; then mount --bind "$new" "$path"; else main=$new; fi
exec "$containerd" --config "$main" config dump
"""


def _dump(containerd: str | None, main: Path, path: Path, text: str) -> Table | None:
    """What containerd makes of the configuration with this text in `path`; None where it cannot be asked, or refuses.

    An empty one is what it has without a configuration.
    """
    if containerd is None:
        return None
    new = Path(f"{_output}.check")
    new.write_text(text)
    words = ["unshare", "--mount", "sh", "-ec", _COVER, "sh", str(new), str(path), containerd, str(main)]
    if not text and not path.exists():
        words = [containerd, "config", "default"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=_DUMP_S)
        if done.returncode != 0:
            _say(f"containerd config dump: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
            return None
        return tomllib.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, tomllib.TOMLDecodeError) as error:
        _say(f"containerd cannot be asked what it makes of {main}: {error}")
        return None
    finally:
        new.unlink()


def _dumped(containerd: str, main: Path, path: Path, text: str) -> Table:
    if (dump := _dump(containerd, main, path, text)) is None:
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
        raise Unseen(f"{path}: containerd would not see the runtime in it")
    for dump in (before, after):
        dump.pop("imports", None)  # its own list of what it has read
    if different := [key for key in {*before, *after} if before.get(key) != after.get(key)]:
        what = ", ".join(sorted(different))
        raise Refusal(f"{path}: more than the runtime would be new for containerd ({what}): add it by hand")


def _refuse_read_only(path: Path) -> None:
    """Before anything else has been changed; what can be written to after all may still fail later."""
    place = path if path.exists() else path.parent
    while not place.exists():
        place = place.parent
    for each in (place, place if place.is_dir() else place.parent):
        if not os.access(each, os.W_OK) or os.statvfs(each).f_flag & os.ST_RDONLY:
            why = "add the runtime where this file is made, or mount it writable"
            raise Refusal(f"{path}: {each} cannot be written to (read-only?): {why}")


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
