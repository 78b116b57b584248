"""Makes the generated code of `api` and `ttrpc` again: `python -m api.generate`.

With `--check DIR` it is made in DIR instead, compared with what is checked in, and the exit status is 1 if a file
differs, is missing, or should not be there. Needs grpcio-tools, which holds protoc.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("api", "ttrpc")
PATTERNS = ("*_pb2.py", "*_pb2.pyi", "*_ttrpc.py")
PROTOC_TIMEOUT_S = 60.0

# protoc starts a plugin by path and with no arguments.
_PLUGIN = """\
#!/bin/sh
exec "$TTRPC_PYTHON" -m ttrpc.plugin
"""

# protoc writes a bare `Mapping` for messages given as dictionaries; mypy --strict would refuse that.
_STUB_HEAD = '# mypy: disable-error-code="type-arg"\n'


class GenerateError(Exception):
    """protoc failed; the message is what it said."""


def generate(target: Path) -> None:
    """Writes everything under `target`, in directories as in the tree. Raises GenerateError."""
    protos = sorted(str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).glob("*.proto"))
    with TemporaryDirectory() as scratch:
        plugin = Path(scratch, "protoc-gen-ttrpc")
        plugin.write_text(_PLUGIN)
        plugin.chmod(0o755)
        command = [
            sys.executable,
            *("-m", "grpc_tools.protoc", f"--proto_path={ROOT}", f"--plugin=protoc-gen-ttrpc={plugin}"),
            *(f"--{kind}_out={target}" for kind in ("python", "pyi", "ttrpc")),
            *protos,
        ]
        environment = os.environ | {"TTRPC_PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
        result = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PROTOC_TIMEOUT_S, check=False
        )
    if result.returncode != 0:
        raise GenerateError(f"protoc failed with status {result.returncode}: {result.stderr.strip()}")
    for proto in protos:
        stub = target / proto.replace(".proto", "_pb2.pyi")
        stub.write_text(_STUB_HEAD + stub.read_text())


def generated_files(root: Path) -> dict[str, bytes]:
    """Contents by path below `root` of every generated file there."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for package in PACKAGES
        for pattern in PATTERNS
        for path in (root / package).glob(pattern)
    }


def differences(target: Path) -> list[str]:
    """One line for each file that `target`, freshly made, and the tree do not have alike."""
    fresh, kept = generated_files(target), generated_files(ROOT)
    return [
        f"{path}: {'differs' if path in fresh and path in kept else 'missing' if path in fresh else 'has no .proto'}"
        for path in sorted(fresh.keys() | kept.keys())
        if fresh.get(path) != kept.get(path)
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m api.generate", description="Generate Python from the .proto files."
    )
    parser.add_argument("--check", metavar="DIR", type=Path, help="make it in DIR and compare with the tree")
    check: Path | None = parser.parse_args(arguments).check
    try:
        generate(check or ROOT)
    except GenerateError as error:
        print(error, file=sys.stderr)
        return 1
    if check is None:
        return 0
    lines = differences(check)
    for line in lines:
        print(f"{line} (run `python -m api.generate`)", file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
