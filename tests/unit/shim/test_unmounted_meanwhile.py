"""What the host unmounts while a process of ours still has a copy of the host's mounts. Needs root.

Such a copy lasts some milliseconds, but would keep a file system from being written to its file in that time, and
containerd's erofs snapshotter (2.3.4) makes a layer of what it finds in that file: an empty one, without an error.
"""

import subprocess
import sys
from pathlib import Path

import pytest

# Run in a mount namespace whose mounts are shared, as systemd has them; the process of ours stops where it would leave
# the copies behind.
_HOST = """
import ctypes, os, subprocess, sys
from pathlib import Path
from shim import anchor_process
from shim.volumes import launcher

place, empty, which = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
here, go = os.pipe(), os.pipe()


class Stopping:
    mount, unshare, umount2, syscall = libc.mount, libc.unshare, libc.umount2, libc.syscall

    @staticmethod
    def pivot_root(new, old):
        os.write(here[1], b"here")
        os.read(go[0], 1)
        return libc.pivot_root(new, old)


def seen(pid):
    return place in (line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines())


subprocess.run(["mount", "-t", "tmpfs", "host", place], check=True)
child = os.fork()
if child == 0:
    try:
        if which == "anchor":
            anchor_process._settle(Stopping, os.fsencode(empty))
        else:
            launcher._enter_root(Stopping, os.fsencode(sys.executable))
        os._exit(0)
    except BaseException as error:
        print(repr(error), flush=True)
        os._exit(1)
os.close(here[1])
assert os.read(here[0], 4) == b"here"
assert seen(child), "it has no copy"
subprocess.run(["umount", place], check=True)
assert not seen(child), "it has kept its copy"
os.write(go[1], b"g")
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print("as it should be")
"""


@pytest.mark.parametrize("which", ["anchor", "virtiofsd"])
def test_it_is_unmounted_there_too(tmp_path: Path, which: str) -> None:
    place, empty = tmp_path / "place", tmp_path / "empty"
    place.mkdir()
    empty.mkdir()
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--propagation", "shared", sys.executable, "-c", _HOST]
    done = subprocess.run(
        [*command, str(place), str(empty), which], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "as it should be\n", done.stdout + done.stderr
