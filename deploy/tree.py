"""Takes files, shared libraries and Python modules out of a tree of unpacked Debian packages.

What the guest's image (initrd/contents.py) and a release's programs (deploy/release/runtime.py) are made from is such a
tree: packages unpacked and otherwise untouched. Run by the tree's own Python (deploy/tree-python.sh).
"""

import os
import py_compile
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

LIBRARIES = "usr/lib/x86_64-linux-gnu"
LOADER = f"{LIBRARIES}/ld-linux-x86-64.so.2"


def copy(source: Path, target: Path) -> Path:
    """Copies a file, or what a link leads to, with a mode that does not depend on who unpacked it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755 if os.access(source, os.X_OK) else 0o644)
    return target


def linked_with(loader: Path, libraries: Path, files: Iterable[Path]) -> set[str]:
    """The names of the shared libraries that `files` are linked with, and those with.

    By the loader of the same C library, which looks in the directory `libraries`. Raises FileNotFoundError for a
    library that is not in it: this machine may have one by that name, another need not.
    """
    names: set[str] = set()
    for file in files:
        command = [str(loader), "--inhibit-cache", "--library-path", str(libraries), "--list", str(file)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        names |= listed(done.stdout, file, libraries)
    return names


def listed(listing: str, file: Path, libraries: Path) -> set[str]:
    """The libraries' names in the output of `ld.so --list`, which is ldd(1)'s.

    Lines are "NAME => PATH (ADDRESS)", "NAME => not found", and without an arrow the loader and the kernel's vDSO.
    The loader itself may be listed by the path that stands in programs. Raises FileNotFoundError for one whose path
    is not in the directory `libraries`.
    """
    names = set()
    for line in listing.splitlines():
        name, arrow, path = line.strip().partition(" => ")
        if not arrow:
            continue
        name = name.rpartition("/")[2]
        if path.partition(" (")[0] != f"{libraries}/{name}" and name != Path(LOADER).name:
            raise FileNotFoundError(f"{name}: {file} is linked with it, and it is not in {libraries}: {path}")
        names.add(name)
    return names


def compile_module(source: Path, compiled: Path, shown: str, *, optimize: int = 0) -> None:
    """Compiles a module to code that is never checked against its source; `shown` is its path in a traceback.

    Raises py_compile.PyCompileError.
    """
    py_compile.compile(
        str(source),
        cfile=str(compiled),
        dfile=shown,
        doraise=True,
        optimize=optimize,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
