"""The disk that a machine is given, read-only: this release as an archive, and it and the previous one unpacked, for
a machine that emulates takes a minute for that; an image of busybox, and busybox itself.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Final

from deploy import image
from tests.kvm.harness.host import IMAGE, LABEL

CHECKOUT: Final = Path(__file__).parents[3]
# The release that hosts are upgraded from: this checkout's code under an older number.
PREVIOUS: Final = "0.0.9"
# Cold caches: kernel and Go take a quarter of an hour on two cores.
BUILD_DEADLINE_S: Final = 2400.0
_COPY_DEADLINE_S: Final = 120.0
_SIZE_MIB: Final = 1536


class BuildFailed(Exception):
    """What is to be tested could not be built."""


def build(*command: str) -> Path:
    """Run a build script of this checkout: the path that it prints. Raises BuildFailed with its last words."""
    done = subprocess.run(
        ["sh", *command], cwd=CHECKOUT, check=False, capture_output=True, text=True, timeout=BUILD_DEADLINE_S
    )
    if done.returncode != 0:
        raise BuildFailed(f"{' '.join(command)}: {done.stderr[-3000:]}")
    return Path(done.stdout.strip())


def archives() -> tuple[Path, Path]:
    """The previous release's archive, and this one's; from the cache where it has them."""
    return build("deploy/release/build.sh", "--version", PREVIOUS), build("deploy/release/build.sh")


def make(work: Path) -> Path:
    """Make the disk in `work`. Its file system is named LABEL."""
    tree = work / "data"
    tree.mkdir()
    for archive, name in zip(archives(), ("previous", "release"), strict=True):
        (tree / name).mkdir()
        unpack = ["tar", "-xzf", str(archive), "-C", str(tree / name), "--strip-components=1"]
        subprocess.run(unpack, check=True, timeout=_COPY_DEADLINE_S)
    shutil.copy(archive, tree / "release.tar.gz")
    image.write_archive(tree / "busybox.tar", IMAGE, [image.busybox_layer()])
    shutil.copy(image.BUSYBOX, tree / "busybox")
    www = tree / "www"
    www.mkdir()
    (www / "index.html").write_text("from the host\n")
    disk = work / "data.img"
    with disk.open("wb") as file:
        file.truncate(_SIZE_MIB << 20)
    words = ["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-L", LABEL, "-d", str(tree), str(disk)]
    subprocess.run(words, check=True, timeout=_COPY_DEADLINE_S)
    shutil.rmtree(tree)
    return disk
