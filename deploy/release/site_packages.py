"""Unpacks wheels into a release's site-packages, compiled. Run by the release's own Python.

    usage: site_packages.py RUNTIME OUT WHEEL...

RUNTIME what runtime.py has made
OUT     lib/qemubox/site-packages; must not exist
WHEEL   the locked ones and our own

What an installer of wheels does beyond that (scripts, records of what it has installed) has no use there: our two
programs have launchers of their own, and a release is replaced as a whole. A wheel that wants more is refused, and one
whose extension modules are linked with a library that the runtime does not have.
"""

import sys
import zipfile
from pathlib import Path

from deploy.tree import LOADER, compile_module, linked_with


def main() -> None:
    runtime, out, *wheels = (Path(argument) for argument in sys.argv[1:])
    out.mkdir(parents=True)
    for wheel in wheels:
        unpack(wheel, out)
    linked_with(runtime / "bin" / Path(LOADER).name, runtime / "lib", sorted(out.rglob("*.so")))
    for source in sorted(out.rglob("*.py")):
        compiled = source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc"
        compiled.parent.mkdir(exist_ok=True)
        compile_module(source, compiled, str(source.relative_to(out.parent)))


def unpack(wheel: Path, out: Path) -> None:
    """Writes a wheel's files below out, readable by all; raises ValueError for what may not be in it."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            target = out / name
            if name.startswith("/") or ".." in Path(name).parts:
                raise ValueError(f"{wheel.name}: {name} would lie outside")
            if Path(name).parts[0].endswith(".data"):
                raise ValueError(f"{wheel.name}: {name} wants an installer")
            if name.endswith("/"):
                continue
            if target.exists():
                raise ValueError(f"{wheel.name}: {name} is in another wheel too")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(name))


if __name__ == "__main__":
    main()
