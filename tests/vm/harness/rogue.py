"""A system image whose vminitd has faults in it, to be called for: the built one with tests/vm/rogue_guest.py in it."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

from harness.flavours import CHECKOUT
from harness.qemubox import built_parts

_MODULE: Final = "usr/lib/qemubox/vminitd/services/containers.py"
_ROGUE: Final = "usr/lib/qemubox/vminitd/rogue.py"
_DEADLINE_S: Final = 60


def rogue_image(directory: Path) -> Path:
    """Make it in `directory`."""
    root, image = directory / "rogue-root", directory / "rogue.erofs"
    _run("fsck.erofs", f"--extract={root}", built_parts()[1])
    module = root / _MODULE
    module.write_text(module.read_text() + "\n\nimport vminitd.rogue\n")
    shutil.copy(CHECKOUT / "tests/vm/rogue_guest.py", root / _ROGUE)
    # What is compiled beside it is taken without a look at the source.
    (compiled,) = (module.parent / "__pycache__").glob(f"{module.stem}.*.pyc")
    compiled.unlink()
    _run("mkfs.erofs", "--quiet", "-x-1", "--all-root", image, root)
    image.chmod(0o644)
    return image


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=_DEADLINE_S)
