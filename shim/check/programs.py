"""The programs beside QEMU: mkfs.erofs, mkfs.ext4, virtiofsd and setpriv: their versions, and what is known of them."""

import os
from typing import Final

from shim.check.host import Host, dotted, version
from shim.check.line import Report
from shim.errors import MissingPartError
from shim.vm.process import SETPRIV
from shim.volumes.program import find

# docs/limitations.md: since when, and what is so before.
_EROFS_OLDEST: Final = (1, 5)
_EROFS: Final = (
    ((1, 6), "files with holes take 5 s for each GiB of them when a layer is converted"),
    ((1, 7), "containerd's erofs differ does not work"),
    ((1, 8, 5), "layers with names of 255 bytes are refused"),
)


async def look(host: Host, report: Report) -> None:
    """See the module."""
    if os.access(SETPRIV, os.X_OK):
        report.ok(SETPRIV, "there")
    else:
        report.failure(SETPRIV, "no such program: QEMU cannot be started without root's rights", "install util-linux")
    await _erofs(host, report)
    await _ext4(host, report)
    await _virtiofsd(host, report)


async def _erofs(host: Host, report: Report) -> None:
    name = host.config.rootfs.mkfs_erofs
    program = host.which(name)
    if program is None:
        report.failure(
            f"rootfs.mkfs_erofs = {name!r}",
            "no such program: layers cannot be converted",
            "apt-get install erofs-utils",
        )
        return
    said = await host.run([program, "-V"])  # 1.5 knows no such option, and says its version all the same
    found = version(said.text, r"mkfs\.erofs")
    if found is None:
        report.failure(program, f"-V says {said.last!r}: no mkfs.erofs", "look at rootfs.mkfs_erofs")
    elif found < _EROFS_OLDEST:
        report.failure(
            program, f"erofs-utils {dotted(found)} is older than {dotted(_EROFS_OLDEST)}", "install newer erofs-utils"
        )
    elif known := [words for since, words in _EROFS if found < since]:
        newest = dotted(_EROFS[-1][0])
        report.warning(
            program,
            f"erofs-utils {dotted(found)}: {'; '.join(known)}",
            f"install erofs-utils {newest} or newer, if you need one of these",
        )
    else:
        report.ok(program, f"erofs-utils {dotted(found)}")


async def _ext4(host: Host, report: Report) -> None:
    name = host.config.rootfs.mkfs_ext4
    program = host.which(name)
    if program is None:
        report.failure(
            f"rootfs.mkfs_ext4 = {name!r}",
            "no such program: containers get no writable layer",
            "apt-get install e2fsprogs",
        )
        return
    said = await host.run([program, "-V"])
    found = version(said.text, "mke2fs")
    if found is None:
        report.failure(program, f"-V says {said.last!r}: no mkfs.ext4", "look at rootfs.mkfs_ext4")
    else:
        report.ok(program, f"e2fsprogs {dotted(found)}")


async def _virtiofsd(host: Host, report: Report) -> None:
    configured = host.config.volumes.daemon
    try:
        program = str(find(configured))
    except MissingPartError as error:
        words = error.message.replace("the container has volumes, and ", "").replace(
            ", and the container has volumes", ""
        )
        report.warning("virtiofsd", f"{words}: containers with volumes are refused", error.hint)
        return
    said = await host.run([program, "--version"])
    found = version(said.text, "virtiofsd")
    if said.status != 0 or found is None:
        report.failure(program, f"--version says {said.last!r}: no virtiofsd", "look at volumes.daemon")
    elif "virtiofsd version" in said.text:
        report.ok(program, f"virtiofsd {dotted(found)}, QEMU's own: O_TMPFILE is refused in volumes")
    else:
        report.ok(program, f"virtiofsd {dotted(found)}")
