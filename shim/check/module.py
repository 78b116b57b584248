"""Whether the host's kernel has a module: built in, loaded, or on the disk to be loaded (modules.dep(5), sysfs)."""

import enum
import os
import re

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
    wanted = re.compile(rf"(?:^|/){re.escape(name).replace('_', '[-_]')}\.ko(?:\.\w+)?(?::|$)", re.MULTILINE)
    if wanted.search(host.text(f"{lists}/modules.builtin") or ""):
        return Module.THERE
    if wanted.search(host.text(f"{lists}/modules.dep") or ""):
        return Module.LOADABLE
    return Module.MISSING
