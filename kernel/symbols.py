"""Gives the guest's stripped kernel its symbols back, for a debugger: `symbols.py VMLINUX SYSTEM_MAP OUT`.

The kernel that machines start from has none: they would be 2 MiB more to read at each boot. OUT is VMLINUX with the
functions of System.map, which kernel/build.sh leaves beside it, as symbols. The kernel is where it was linked to be (no
CONFIG_RANDOMIZE_BASE), so a debugger has nothing to be told of. Needs objcopy (binutils).
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

_TEXT = "_text"
_TIMEOUT_S = 120.0


def options(system_map: str) -> Iterator[str]:
    """objcopy's option for each function: its place in .text. Raises ValueError for what is no System.map."""
    lines = [line.split() for line in system_map.splitlines()]
    if not lines or any(len(line) != 3 for line in lines):
        raise ValueError("not the lines of a System.map: an address, a type, a name")
    functions = {name: int(address, 16) for address, kind, name in lines if kind in "tT"}
    if _TEXT not in functions:
        raise ValueError(f"there is no {_TEXT}")
    for name, address in functions.items():
        if address >= functions[_TEXT]:
            yield f"--add-symbol {name}=.text:{address - functions[_TEXT]:#x},global,function"


def main(words: list[str]) -> int:
    if len(words) != 3:
        print("usage: python kernel/symbols.py VMLINUX SYSTEM_MAP OUT", file=sys.stderr)
        return 2
    kernel, system_map, out = map(Path, words)
    try:
        with tempfile.NamedTemporaryFile("w", suffix=".options") as file:
            file.write("\n".join(options(system_map.read_text())))
            file.flush()
            subprocess.run(["objcopy", f"@{file.name}", kernel, out], check=True, timeout=_TIMEOUT_S)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        print(f"symbols.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
