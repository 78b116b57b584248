"""Takes out of unpacked Debian packages what a release runs: RUNTIME, a directory that works wherever it lies.

    usage: runtime.py BASE FILES LAUNCHER OUT      (run by runtime.sh, with BASE's own Python)

BASE      Debian packages, unpacked and otherwise untouched
FILES     a directory with a file for each package: the paths that it has brought, as tar(1) lists them
LAUNCHER  the compiled launcher.c
OUT       RUNTIME; must not exist

    bin/NAME          the launcher, hard-linked: becomes libexec/NAME with the loader and the libraries that lie here
    bin/ld-linux-…    the loader: here, because QEMU looks beside /proc/self/exe
    libexec/NAME      the programs
    lib/*.so*         every shared library that programs and Python's extensions are linked with
    lib/python3.13    Python's library, whole but for what serves its own development; compiled
    lib/xtables       iptables' extensions
    share/qemu        the firmware that the machines of shim/vm/machine.py read; QEMU finds it by bin/qemu-bundle
    etc/mke2fs.conf   what mkfs.ext4 takes for granted
    share/doc/*/copyright   each package's licence

The names of the packages that anything was taken from are printed, one a line.
"""

import os
import sys
from pathlib import Path

from deploy.tree import LIBRARIES, LOADER, compile_module, copy, linked_with

# Where each program is in Debian. More than one name: it looks at the name that it is called by.
PROGRAMS = {
    "usr/bin/python3.13": ("python3",),
    "usr/bin/qemu-system-x86_64": ("qemu-system-x86_64",),
    "usr/libexec/virtiofsd": ("virtiofsd",),
    "usr/bin/mkfs.erofs": ("mkfs.erofs",),
    "usr/sbin/mkfs.ext4": ("mkfs.ext4",),
    "usr/bin/ip": ("ip",),
    "usr/sbin/nft": ("nft",),
    "usr/sbin/xtables-nft-multi": (
        *("iptables", "iptables-save", "iptables-restore"),
        *("ip6tables", "ip6tables-save", "ip6tables-restore"),
    ),
}

# What a q35 machine of ours reads, found by looking at what QEMU opens (docs/decisions/0032): the BIOS, what starts a
# PVH kernel and, for a kernel of the administrator's without that note, any other; what the local APIC's registers are
# read and written through where the hardware does not help.
FIRMWARE = (
    "usr/share/seabios/bios-256k.bin",
    "usr/share/qemu/pvh.bin",
    "usr/share/qemu/linuxboot_dma.bin",
    "usr/share/qemu/kvmvapic.bin",
)

# Debian's QEMU looks where Debian has it, but below this directory, beside /proc/self/exe, if there is one: it is for
# running QEMU from where it was built (QEMU's util/cutils.c, get_relocated_path).
BUNDLE = "bin/qemu-bundle"

# Opened by name when a thread is ended: glibc aborts the process if it is not there. And what wheels may be linked
# with beside the C library proper (PEP 599); site_packages.py looks whether it is all.
EXTRA_LIBRARIES = (
    "libgcc_s.so.1",
    *("libdl.so.2", "libm.so.6", "libpthread.so.0", "libresolv.so.2", "librt.so.1", "libstdc++.so.6", "libutil.so.1"),
)

STDLIB = "usr/lib/python3.13"
# Its own tests, its editor, what draws windows, what installs pip; and Debian's hook, which leads to the host's /etc.
LEFT_OUT = frozenset({"test", "idlelib", "tkinter", "turtledemo", "turtle.py", "ensurepip", "sitecustomize.py"})

OTHER = {"etc/mke2fs.conf": "etc/mke2fs.conf"}


class Taking:
    """Copies from base to out, and remembers what."""

    def __init__(self, base: Path, out: Path) -> None:
        self.base = base
        self.out = out
        self.taken: set[str] = set()

    def file(self, source: str, target: str) -> Path:
        """Copies BASE/source to OUT/target."""
        # Debian's files are named by their real path in the package, and so are links.
        self.taken.add(str((self.base / source).resolve().relative_to(self.base)))
        self.taken.add(source)
        return copy(self.base / source, self.out / target)

    def directory(self, source: str, target: str, left_out: frozenset[str]) -> list[Path]:
        """Copies all files below BASE/source but those below a name of `left_out` at its top; names the copies."""
        top = self.base / source
        kept = (path for path in sorted(top.rglob("*")) if path.relative_to(top).parts[0] not in left_out)
        files = [path.relative_to(top) for path in kept if path.is_file()]
        return [self.file(f"{source}/{path}", f"{target}/{path}") for path in files]


def main() -> None:
    base, files, launcher, out = (Path(argument).resolve() for argument in sys.argv[1:])
    out.mkdir()
    taking = Taking(base, out)
    binaries = [*programs(taking, launcher), *python_library(taking)]
    binaries += taking.directory(f"{LIBRARIES}/xtables", "lib/xtables", frozenset())
    libraries = base / LIBRARIES
    wanted = linked_with(base / LOADER, libraries, [*binaries, *(libraries / name for name in EXTRA_LIBRARIES)])
    for name in sorted({*EXTRA_LIBRARIES, *wanted}):
        taking.file(f"{LIBRARIES}/{name}", f"lib/{name}")
    taking.file(LOADER, f"bin/{Path(LOADER).name}").chmod(0o755)
    for firmware in FIRMWARE:
        taking.file(firmware, f"share/qemu/{Path(firmware).name}")
    (out / BUNDLE).mkdir()
    (out / BUNDLE / "usr").symlink_to("../..")
    for source, target in OTHER.items():
        taking.file(source, target)
    owners = packages_of(taking.taken, {path.name: path.read_text() for path in files.iterdir()})
    for package in owners:
        taking.file(f"usr/share/doc/{package}/copyright", f"share/doc/{package}/copyright")
    print("\n".join(owners))


def programs(taking: Taking, launcher: Path) -> list[Path]:
    """Lays out the programs and their launchers; names the programs."""
    binaries = []
    first: Path | None = None
    for source, names in PROGRAMS.items():
        program = taking.file(source, f"libexec/{names[0]}")
        binaries.append(program)
        for name in names:
            if name != names[0]:
                (program.parent / name).symlink_to(names[0])
            started = taking.out / "bin" / name
            if first is None:
                first = copy(launcher, started)
                first.chmod(0o755)
            else:
                started.parent.mkdir(exist_ok=True)
                os.link(first, started)
    return binaries


def python_library(taking: Taking) -> list[Path]:
    """Lays out Python's library, compiled; names the extension modules."""
    copies = taking.directory(STDLIB, "lib/python3.13", LEFT_OUT)
    for source in copies:
        if source.suffix == ".py":
            cache = source.parent / "__pycache__"
            cache.mkdir(exist_ok=True)
            shown = str(source.relative_to(taking.out))  # the import system puts the real place in
            compile_module(source, cache / f"{source.stem}.{sys.implementation.cache_tag}.pyc", shown)
    return [path for path in copies if path.suffix == ".so"]


def packages_of(taken: set[str], listings: dict[str, str]) -> list[str]:
    """The packages whose listing (lines "./path") has one of the files; raises LookupError for a file of none."""
    owners: dict[str, str] = {}
    for package, listing in listings.items():
        for line in listing.splitlines():
            owners[line.removeprefix("./")] = package
    found = {owners[path] for path in taken if path in owners}
    strangers = sorted(path for path in taken if path not in owners)
    if strangers:
        raise LookupError(f"of no package: {strangers[:5]}")
    return sorted(found)


if __name__ == "__main__":
    main()
