"""Puts the guest's root together from a base tree and our sources. Run by initrd/build.sh, with the guest's own Python.

    usage: contents.py BASE PROJECT OUT

BASE     Debian packages and Python wheels, unpacked and otherwise untouched
PROJECT  the checkout: vminitd, archive, netlink, ttrpc and api, and initrd/root with the few files of our own
OUT      what becomes the image; must not exist

Into OUT go only the Python modules that vminitd can reach (closure.py), the programs in PROGRAMS, and the
shared libraries that these are linked with. The libraries' modules are there as compiled code alone (tracebacks keep
function and line number); ours keep their source too, so that a traceback on the console shows the line.
"""

import shutil
import sys
from pathlib import Path

from deploy.tree import LIBRARIES, LOADER, compile_module, copy, linked_with
from initrd.closure import closure

OWN = frozenset({"api", "archive", "netlink", "ttrpc", "vminitd"})
# Wanted whole, since they import parts of themselves by name at run time; less what serves development only.
ENTRY_PACKAGES = ("vminitd", "ttrpc")
TOOLS = frozenset({"ttrpc.plugin", "ttrpc.plugin_text"})

# Reached by name at run time: the codecs of interpreter start, and what prints a traceback.
EXTRA_MODULES = ("encodings.utf_8", "encodings.ascii", "encodings.latin_1", "os", "traceback")

# Imported by libraries for what the guest never does: to test or debug themselves, as a program of their own,
# for other systems, for the network beyond sockets, for compression, for processes by multiprocessing.
EXCLUDED = frozenset(
    {
        *("_pyrepl", "bdb", "cmd", "doctest", "readline", "pdb", "pydoc", "rlcompleter", "test", "unittest"),
        *("_testcapi", "_testinternalcapi", "_testlimitedcapi", "ctypes.wintypes", "asyncio.windows_events"),
        *("asyncio.proactor_events", "asyncio.windows_utils", "ctypes._aix", "encodings.mbcs", "_osx_support"),
        *("_ios_support", "_aix_support", "_android_support", "argparse", "getopt", "gettext", "optparse"),
        *("_hashlib", "_ssl", "ssl", "email", "ftplib", "html", "http", "mimetypes", "netrc", "urllib", "webbrowser"),
        *("xml", "xmlrpc", "_bz2", "_lzma", "bz2", "gzip", "lzma", "tarfile", "zipfile", "zipimport", "plistlib"),
        *("concurrent.futures.process", "multiprocessing", "_multiprocessing", "importlib.metadata"),
        *("importlib.resources", "importlib.readers", "sysconfig", "py_compile", "runpy", "_pydatetime"),
        *("_pydecimal", "_pyio", "_py_abc", "_strptime", "statistics", "pickletools", "curses"),
    }
)

PROGRAMS = ("usr/bin/python3.13", "usr/bin/crun")
# Opened by name when a thread is ended: glibc aborts the process if it is not there.
EXTRA_LIBRARIES = (f"{LIBRARIES}/libgcc_s.so.1",)

STDLIB = "usr/lib/python3.13"
APPLICATION = "usr/lib/qemubox"
# The versions of everything that is not ours.
MANIFEST = "usr/share/qemubox/manifest"

# Mount points and places that programs take for granted. All but these is as good as read-only.
DIRECTORIES = ("dev", "etc", "mnt", "proc", "run", "sys", "tmp", "var")
LINKS = {
    "bin": "usr/bin",
    "sbin": "usr/bin",
    "lib": "usr/lib",
    "lib64": "usr/lib64",
    "usr/lib64/ld-linux-x86-64.so.2": f"/{LOADER}",
    "etc/mtab": "/proc/self/mounts",
    "var/run": "/run",
    "var/tmp": "/tmp",
}


def main() -> None:
    base, project, out = (Path(argument).resolve() for argument in sys.argv[1:])
    out.mkdir()
    roots = (project, base / APPLICATION, base / STDLIB, base / STDLIB / "lib-dynload")
    modules = closure((*entries(project), *EXTRA_MODULES), roots, OWN, EXCLUDED)
    extensions = [place(name, path, roots, out) for name, path in modules.items()]
    programs = [copy(base / program, out / program) for program in PROGRAMS]
    copy_libraries(base, out, [*programs, *(path for path in extensions if path.suffix == ".so")])
    copy(base / MANIFEST, out / MANIFEST)
    shutil.copytree(project / "initrd/root", out, dirs_exist_ok=True)
    lay_out(out)


def entries(project: Path) -> list[str]:
    """Every module of the packages that go in whole."""
    names = []
    for package in ENTRY_PACKAGES:
        for source in sorted((project / package).rglob("*.py")):
            parts = source.relative_to(project).with_suffix("").parts
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return [name for name in names if name not in TOOLS]


def place(name: str, path: Path, roots: tuple[Path, ...], out: Path) -> Path:
    """Puts one module where the guest's sys.path finds it; returns the file in the image."""
    root = next(root for root in roots if path.is_relative_to(root))
    where = {"python3.13": STDLIB, "lib-dynload": f"{STDLIB}/lib-dynload"}.get(root.name, APPLICATION)
    target = out / where / path.relative_to(root)
    if path.suffix == ".so":
        return copy(path, target)
    is_own = name.partition(".")[0] in OWN
    target.parent.mkdir(parents=True, exist_ok=True)
    compiled = Path(compiled_beside(target)) if is_own else target.with_suffix(".pyc")
    if is_own:
        copy(path, target)
    compile_module(path, compiled, f"/{target.relative_to(out)}", optimize=0 if is_own else 2)
    return compiled


def compiled_beside(source: Path) -> str:
    return str(source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc")


def copy_libraries(base: Path, out: Path, files: list[Path]) -> None:
    """Copies the shared libraries that `files` are linked with, as the guest's own loader lists them."""
    linked = linked_with(base / LOADER, base / LIBRARIES, files)
    needed = {LOADER, *EXTRA_LIBRARIES, *(f"{LIBRARIES}/{name}" for name in linked)}
    for library in sorted(needed):
        copy(base / library, out / library)
    (out / LOADER).chmod(0o755)


def lay_out(out: Path) -> None:
    for directory in DIRECTORIES:
        (out / directory).mkdir(exist_ok=True)
    for link, target in LINKS.items():
        (out / link).parent.mkdir(parents=True, exist_ok=True)
        (out / link).symlink_to(target)
    (out / "init").chmod(0o755)


if __name__ == "__main__":
    main()
