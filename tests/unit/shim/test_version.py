"""One version, in two files."""

import tomllib
from pathlib import Path

from shim.version import BINARY_NAME, RUNTIME_NAME, VERSION

_PROJECT = Path(__file__).parents[3] / "pyproject.toml"


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads(_PROJECT.read_text())["project"]
    assert project["version"] == VERSION
    assert project["scripts"][BINARY_NAME] == "shim.entry:main"


def test_containerd_finds_the_binary_by_the_runtimes_name() -> None:
    # io.containerd.NAME.VERSION is run as containerd-shim-NAME-VERSION (containerd, pkg/shim/util.go).
    name, version = RUNTIME_NAME.split(".")[-2:]
    assert f"containerd-shim-{name}-{version}" == BINARY_NAME
