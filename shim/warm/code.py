"""Whether the service is of the same code as a `start`, and still what lies on the disk.

An installation puts each version of the code into a directory of its own (install.sh), so the
directory tells the code of `start`. A checkout does not; so the service remembers what each of
our files was when it was loaded. The interpreter is compared too: a security update replaces it.

A release brings its own interpreter, in a directory of each version's own too, and starts it by the
loader that lies there (deploy/release/launcher.c). So the program that runs is the loader, and
sys.executable, by which it could be started again, lies in the old directory after an upgrade.
"""

import os
import sys
from typing import Final

from shim.warm.ask import packages

_OURS: Final = ("api", "archive", "cni", "netlink", "shim", "ttrpc")

_OURSELVES: Final = "/proc/self/exe"

_Stamp = tuple[int, int, int]


class Code:
    """What this process has loaded; made when all imports are done.

    `link` leads to the directory of the packages, and after another installation to another one.
    """

    def __init__(self, link: str) -> None:
        self._link = link
        self._packages = packages()
        self._program = _identity(_OURSELVES)
        self._files = {path: _stamp(path) for path in _loaded()}

    def differs(self, its_packages: str, its_program: tuple[int, int]) -> str:
        """Why a `start` of this code cannot be served by ours; empty where it can."""
        if its_packages != self._packages:
            return f"its code is in {its_packages}, ours from {self._packages}"
        if its_program != self._program:
            return "its Python is another than ours"
        return self.changed()

    def changed(self) -> str:
        """What is no longer as it was when it was loaded; empty where all is, and a new start would change nothing."""
        if (now := os.path.realpath(self._link)) != self._packages:
            return f"{self._link} leads to {now} now"
        program = program_of(interpreter(), os.readlink(_OURSELVES))
        if _identity(program) != self._program:
            return f"{program} is another program now"
        for path, stamp in self._files.items():
            if _stamp(path) != stamp:
                return f"{path} has changed"
        return ""


def interpreter() -> str:
    """The Python to execute ourselves with once more: of a release, by the link that leads to the one in force."""
    directory, name = os.path.split(sys.executable)
    runtime = os.path.dirname(directory)
    link = f"{runtime.rpartition('-')[0]}/bin/{name}"
    return link if os.path.basename(runtime).startswith("runtime-") and os.path.exists(link) else sys.executable


def program_of(python: str, running: str) -> str:
    """What would be /proc/self/exe if `python` were executed; `running` is what it is now: Python, or a loader."""
    name = os.path.basename(running)
    return os.path.join(os.path.dirname(python), name) if name.startswith("ld-linux") else python


def _identity(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0)
    return (status.st_dev, status.st_ino)


def _loaded() -> list[str]:
    files = [
        getattr(module, "__file__", None) for name, module in sys.modules.items() if name.partition(".")[0] in _OURS
    ]
    return [file for file in files if file]


def _stamp(path: str) -> _Stamp:
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return (status.st_ino, status.st_mtime_ns, status.st_size)
