"""Whether the host's kernel has a module: built in, loaded, or on the disk to be loaded (modules.dep(5), sysfs)."""

import enum
import os

from shim.check.host import Host


class Module(enum.StrEnum):
    """Where it is."""

    THERE = "there"
    LOADABLE = "can be loaded"
    MISSING = "is missing"


def module(host: Host, name: str) -> Module:
    """Where the module `name` is. Raises OSError."""
    if host.path(f"/sys/module/{name}").is_dir():
        return Module.THERE
    lists = f"/lib/modules/{os.uname().release}"
    if name in _listed(host.text(f"{lists}/modules.builtin") or ""):
        return Module.THERE
    if name in _listed(host.text(f"{lists}/modules.dep") or ""):
        return Module.LOADABLE
    return Module.MISSING


def _listed(text: str) -> set[str]:
    """The names of a list's modules, of which each is a path at the beginning of its line."""
    paths = (line.partition(":")[0] for line in text.splitlines())
    return {os.path.basename(path).partition(".ko")[0].replace("-", "_") for path in paths}
