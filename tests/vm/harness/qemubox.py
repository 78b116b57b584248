"""The shim under test, laid out as the installer does it, and its configuration.

The launcher is the very file that is installed; the environment beside it is made of
links to the checkout's own environment and packages, so that what runs is the checkout.
The configuration is a file that QEMUBOX_CONFIG names: the shim reads it at each start,
so a test can change it for a while.
"""

import functools
import json
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from harness.cell import Cell
from harness.flavours import CHECKOUT, MissingPart, output_of

RUNTIME: Final = "io.containerd.qemubox.v1"
BINARY: Final = "containerd-shim-qemubox-v1"
COMMAND: Final = "qemubox"
_PACKAGES: Final = ("api", "archive", "cni", "netlink", "shim", "ttrpc", "vminitd")
_BUILD_DEADLINE_S: Final = 1800.0
_COMMAND_DEADLINE_S: Final = 120.0

Value = str | int | bool | list[str]
Sections = dict[str, dict[str, Value]]


@functools.cache
def built_parts() -> tuple[str, str, str]:
    """Kernel, system image and vhost-device-vsock, from their caches or built now. Raises MissingPart."""
    return (
        output_of([CHECKOUT / "kernel" / "build.sh"], _BUILD_DEADLINE_S),
        output_of([CHECKOUT / "initrd" / "build.sh"], _BUILD_DEADLINE_S),
        output_of([CHECKOUT / "deploy" / "vhost-device-vsock.sh"], _BUILD_DEADLINE_S),
    )


class Qemubox:
    """An installed qemubox in `directory`. With a cell its command runs in there, and leaves nothing outside."""

    def __init__(self, directory: Path, cell: Cell | None = None) -> None:
        self._cell = cell
        self.prefix = directory / "prefix"
        self.data = directory / "data"
        self.cache = directory / "cache"
        self.config = directory / "config.toml"
        self.conf_dir = directory / "net.d"
        self.conf_dir.mkdir(exist_ok=True)
        self._sections: Sections = {
            "runtime": {"state_dir": "/run/qemubox", "data_dir": str(self.data), "cache_dir": str(self.cache)},
            # Tests of networks choose one, by the annotation.
            "network": {"name": "none", "conf_dir": str(self.conf_dir)},
            "annotations": {"allow": ["network.name"]},
            "log": {"level": "debug"},
        }
        self.bin = self.prefix / "bin"
        self._installed = False
        self._write(self._sections)

    @property
    def environment(self) -> dict[str, str]:
        """What containerd must have in its environment."""
        return {"QEMUBOX_CONFIG": str(self.config)}

    def install(self) -> None:
        """Lay out the prefix, name the built parts in the configuration, make the template. Raises MissingPart."""
        if self._installed:
            return
        kernel, image, daemon = built_parts()
        self.bin.mkdir(parents=True, exist_ok=True)
        for source, name in (("launcher", BINARY), ("qemubox", COMMAND)):
            shutil.copy(CHECKOUT / "deploy" / source, self.bin / name)
            (self.bin / name).chmod(0o755)
        installed = Path(sysconfig.get_paths()["purelib"])
        packages = self.prefix / "lib/qemubox/venv/lib" / installed.parent.name / "site-packages"
        packages.mkdir(parents=True, exist_ok=True)
        for target in [*(CHECKOUT / name for name in _PACKAGES), *installed.iterdir()]:
            link = packages / target.name
            if not link.is_symlink():
                link.symlink_to(target)
        self._sections["vm"] = {"kernel": kernel, "image": image}
        self._sections["vsock"] = {"daemon": daemon}
        self._write(self._sections)
        if (built := self.command("template", "build")).returncode:
            raise MissingPart(f"there is no template to start from: {built.stderr}")
        self._installed = True

    def command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run the `qemubox` command with this configuration."""
        command = [str(self.bin / COMMAND), *words]
        return subprocess.run(
            self._cell.inside(command) if self._cell else command,
            check=False,
            capture_output=True,
            text=True,
            timeout=_COMMAND_DEADLINE_S,
            env={**os.environ, **self.environment},
        )

    @contextmanager
    def changed(self, changes: Sections) -> Iterator[None]:
        """Other values in the configuration for a while: `{"vm": {"boot_timeout_s": 5}}`."""
        names = [*self._sections, *(name for name in changes if name not in self._sections)]
        self._write({name: {**self._sections.get(name, {}), **changes.get(name, {})} for name in names})
        try:
            yield
        finally:
            self._write(self._sections)

    def _write(self, sections: Sections) -> None:
        """JSON's texts, numbers and truths are TOML's too."""
        lines = []
        for name, values in sections.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        draft = self.config.with_suffix(".new")
        draft.write_text("\n".join(lines) + "\n")
        draft.rename(self.config)
