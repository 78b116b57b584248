"""The version that -v, -info and Connect tell; a test holds it to pyproject.toml's."""

RUNTIME_NAME = "io.containerd.qemubox.v1"
BINARY_NAME = "containerd-shim-qemubox-v1"
VERSION = "0.1.0"
