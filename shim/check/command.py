"""`qemubox check [--json] [--quick]`: looks at everything a container needs, and says what to do where it is not there.

Exit status 0 where nothing is a failure, warnings or not, else 1. With --json one document, which only ever gains keys:

    {"format": 1, "version": "0.1.0", "status": "ok" | "warning" | "failure", "quick": false,
     "counts": {"ok": 20, "warning": 2, "failure": 0},
     "lines": [{"status": "ok", "area": "qemu", "what": "/usr/bin/…", "found": "QEMU 7.2.22", "mend": ""}, …]}

`area` is one of a fixed list (runner.py); `mend` is empty where nothing is to be done. Other words may change.
"""

import argparse
import asyncio
import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from shim.version import VERSION

if TYPE_CHECKING:
    from shim.check.line import Line

FORMAT: Final = 1


def run(arguments: argparse.Namespace) -> int:
    """What the command line says; the answer is the exit status."""
    return check(quick=arguments.quick, as_json=arguments.json)


def check(*, quick: bool, as_json: bool, environ: Mapping[str, str] = os.environ) -> int:
    """Look, and print; the answer is the exit status."""
    lines: list[Line] = []

    def tell(line: "Line") -> None:
        lines.append(line)
        if not as_json:
            print(line, flush=True)

    _look(tell, quick=quick, environ=environ)
    counts = Counter(str(line.level) for line in lines)
    if as_json:
        print(json.dumps(document(lines, quick=quick), indent=1))
    else:
        print(f"{counts['ok']} ok, {counts['warning']} warnings, {counts['failure']} failures")
    return 1 if counts["failure"] else 0


def document(lines: "list[Line]", *, quick: bool) -> dict[str, object]:
    """What --json prints."""
    from shim.check.line import Level, worst

    counts = Counter(line.level for line in lines)
    return {
        "format": FORMAT,
        "version": VERSION,
        "status": worst(lines),
        "quick": quick,
        "counts": {level: counts[level] for level in Level},
        "lines": [
            {"status": line.level, "area": line.area, "what": line.what, "found": line.found, "mend": line.mend}
            for line in lines
        ],
    }


def _look(tell: "Callable[[Line], None]", *, quick: bool, environ: Mapping[str, str]) -> None:
    # Neither the service nor another command needs all of this.
    from shim.check import configuration, containerd, runner, scratch
    from shim.check.host import Host
    from shim.check.line import Report
    from shim.errors import QemuboxError
    from shim.interrupt import told_to_end_as_by_ctrl_c

    report = Report(configuration.AREA)
    config = configuration.load(report, environ)
    for line in report.lines:
        tell(line)
    host = Host(config, quick=quick, environ=containerd.with_its_path(dict(environ)))
    with contextlib.ExitStack() as stack:
        stack.enter_context(told_to_end_as_by_ctrl_c())
        # What is the shim's own looks into the process's environment.
        stack.callback(os.environ.__setitem__, "PATH", os.environ.get("PATH", os.defpath))
        os.environ["PATH"] = host.environ.get("PATH", os.defpath)
        if os.geteuid() == 0:
            try:
                host.directory, host.journal = stack.enter_context(scratch.directory(Path(config.runtime.state_dir)))
            except QemuboxError as error:
                host.no_directory = str(error)
        asyncio.run(runner.look_at_all(host, tell))
