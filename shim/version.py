"""The version that -v, -info and Connect tell; a test holds it to pyproject.toml's."""

from typing import Final

RUNTIME_NAME: Final = "io.containerd.qemubox.v1"
BINARY_NAME: Final = "containerd-shim-qemubox-v1"
VERSION: Final = "0.1.0"
