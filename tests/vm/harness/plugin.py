"""CNI plugins of the tests' own, beside the real ones: shell scripts that do as they are told."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from harness.box import Box
from harness.cni import Net
from harness.qemubox import Sections

_DIRECTORIES: Final = ("/opt/cni/bin", "/usr/lib/cni")
# What is in `$request` and what every plugin behind the first has to print: what those before it have made.
_BEGIN: Final = """#!/bin/sh
request=$(cat)
previous() {
  printf '%s' "$request" | python3 -c 'import json, sys; print(json.dumps(json.load(sys.stdin)["prevResult"]))'
}
"""


@contextmanager
def plugins(box: Box, scripts: Mapping[str, str], *, timeout_s: int = 20) -> Iterator[Path]:
    """Plugins by name, for the containers that begin meanwhile: lines of shell. Answers their directory.

    `$request` has what the plugin was given, and `previous` prints its prevResult.
    """
    directory = box.containerd.cell.directory / "plugins"
    directory.mkdir()
    for name, script in scripts.items():
        path = directory / name
        path.write_text(_BEGIN + script)
        path.chmod(0o755)
    changes: Sections = {"network": {"plugin_dirs": [str(directory), *_DIRECTORIES], "timeout_s": timeout_s}}
    try:
        with box.qemubox.changed(changes):
            yield directory
    finally:
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()


def behind(net: Net, name: str) -> Net:
    """The network with such a plugin behind its own."""
    return net.chained({"type": name})
