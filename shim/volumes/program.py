"""Which virtiofsd the host has, and what it is told.

There are two: the one of QEMU's own sources up to 7.2, in C (Debian 12, in qemu-system-common), and virtio-fs's own in
Rust (Debian 13 and newer). Their options have the same meanings under other names: the newer one takes the older one's
with a warning for each start, and has one of its own that must be given, or it would keep CAP_DAC_READ_SEARCH, by which
any file of a file system can be opened, and not only those below a volume (open_by_handle_at(2)).
"""

import asyncio
import os
import shutil
from pathlib import Path
from typing import Final

from shim import deadlines
from shim.errors import HostError, MissingPartError
from shim.volumes.launcher import SHARE

AUTO: Final = "auto"
# Neither is in PATH where distributions put it: Debian 13 and Fedora, Debian 12, Arch.
_KNOWN: Final = ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/lib/virtiofsd")
_NAME: Final = "virtiofsd"

# A program in a volume may lock files as on any file system; the locks are the guest's own. (Locks that go through the
# daemon are the older one's alone, and it refuses those that wait.) `auto`: what the guest knows of a file is good for
# a second, and what it has of its content until the next open.
_OF_QEMU: Final = (
    *("-o", f"source={SHARE},sandbox=namespace,cache=auto,xattr,posix_acl,no_flock,no_posix_lock,log_level=warn"),
)
_OF_ITS_OWN: Final = (
    *(f"--shared-dir={SHARE}", "--sandbox=namespace", "--seccomp=kill", "--inode-file-handles=never", "--cache=auto"),
    *("--xattr", "--posix-acl", "--log-level=warn"),
)
# Whether the guest is told where in the share another file system begins. Told, it shows each as a device of its own,
# so that no two files of two of them seem to be one, as they have the same inode number. But Linux (6.12) forgets POSIX
# ACLs there (fuse_fill_super_submount does not set SB_POSIXACL): it is told only where there is more than one.
_SUBMOUNTS_OF_QEMU: Final = {True: ("-o", "announce_submounts"), False: ()}
_SUBMOUNTS_OF_ITS_OWN: Final = {True: ("--announce-submounts",), False: ("--no-announce-submounts",)}


def find(configured: str) -> Path:
    """The program that `volumes.daemon` of the configuration means. Raises MissingPartError."""
    if configured in ("", AUTO):
        for path in (*_KNOWN, shutil.which(_NAME) or ""):
            if os.access(path, os.X_OK):
                return Path(path)
        raise MissingPartError(
            f"the container has volumes, and there is no {_NAME} in {', '.join(_KNOWN)} or in PATH",
            hint=f"apt-get install {_NAME} (Debian 12: qemu-system-common), or name it as volumes.daemon",
        )
    found = shutil.which(configured)
    if found is None:
        raise MissingPartError(
            f"volumes.daemon = {configured!r}: no such program, and the container has volumes",
            hint=f"apt-get install {_NAME} (Debian 12: qemu-system-common)",
        )
    return Path(os.path.realpath(found))


async def command(program: Path, *, submounts: bool) -> list[str]:
    """Its command line for the share at launcher.SHARE, less the socket. Asks it which of the two it is.

    `submounts`: there is more than one file system in the share. Raises HostError where it does not say.
    """
    said = await _version(program)
    # "virtiofsd version 7.2.22 (Debian …)" and "virtiofsd 1.13.2"
    if not said.startswith(f"{_NAME} "):
        raise HostError(f"{program} --version says {said[:80]!r}: no {_NAME}", hint="look at volumes.daemon")
    if said.startswith(f"{_NAME} version "):
        return [str(program), *_OF_QEMU, *_SUBMOUNTS_OF_QEMU[submounts]]
    return [str(program), *_OF_ITS_OWN, *_SUBMOUNTS_OF_ITS_OWN[submounts]]


async def _version(program: Path) -> str:
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    try:
        asking = await asyncio.create_subprocess_exec(
            program, "--version", stdin=null, stdout=pipe, stderr=null, env={"PATH": os.defpath, "LC_ALL": "C"}
        )
    except OSError as error:
        raise HostError(f"{program} cannot be run: {error.strerror}", hint="look at volumes.daemon") from error
    try:
        async with asyncio.timeout(deadlines.VOLUMES_READY_S):
            said, _ = await asking.communicate()
    except TimeoutError:
        raise HostError(f"{program} --version does not end within {deadlines.VOLUMES_READY_S:g} s") from None
    finally:
        if asking.returncode is None:
            asking.kill()
            await asking.wait()
    return said.decode(errors="replace")
