"""The guest's kernel and image: whether they are there, what they are, and whether QEMU's user may read them.

ELF       elf(5); QEMU enters a kernel by the PVH note (Xen's xen/include/public/elfnote.h, PHYS32_ENTRY)
EROFS     its superblock says how long it is (shim/rootfs/filesystems.py)
"""

import mmap
import os
import re
import struct
from pathlib import Path
from typing import Final

from shim.check.host import Host
from shim.check.line import Report
from shim.check.thread import in_thread
from shim.errors import ConfigError, HostError
from shim.hypervisor import credentials_of
from shim.rootfs import filesystems
from shim.vm.process import SETPRIV

_ELF: Final = b"\x7fELF\x02\x01\x01"
_X86_64: Final = 62
# Of an ELF file, and so far that a bzImage says so, too.
_HEADER_BYTES: Final = 0x206
_PT_NOTE: Final = 4
_PVH: Final = 18
_BZIMAGE_AT, _BZIMAGE = 0x202, b"HdrS"
_MEND: Final = "run install.sh again, or name another in the configuration"


async def look(host: Host, report: Report) -> None:
    """See the module."""
    for key, name, examine in (("vm.kernel", host.config.vm.kernel, kernel), ("vm.image", host.config.vm.image, image)):
        path = Path(name)
        what = f"{key} {name}"
        try:
            found = await in_thread(lambda path=path, examine=examine: examine(path))  # type: ignore[misc]
        except OSError as error:
            report.failure(what, f"{error.strerror}", _MEND)
        except HostError as error:
            report.failure(what, error.message, error.hint or _MEND)
        else:
            if await _readable(host, path):
                report.ok(what, found)
            else:
                report.failure(
                    what,
                    f"the user {host.config.runtime.user} cannot read it, and QEMU has no more rights than that user",
                    f"chmod a+r {name}, and a+x on the directories above it",
                )


def kernel(path: Path) -> str:
    """What kernel it is. Raises OSError, or HostError for what QEMU cannot enter."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < _HEADER_BYTES:
            raise HostError("it is no kernel: it is shorter than any", hint=_MEND)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _described(data)


def _described(data: mmap.mmap) -> str:
    if data[_BZIMAGE_AT : _BZIMAGE_AT + 4] == _BZIMAGE:
        raise HostError("it is a bzImage, and must be the uncompressed vmlinux", hint=_MEND)
    if data[: len(_ELF)] != _ELF or struct.unpack_from("<H", data, 18) != (_X86_64,):
        raise HostError("it is no kernel: no ELF file of x86_64", hint=_MEND)
    if not any(_is_pvh(note) for note in _notes(data)):
        raise HostError("it has no PVH entry (CONFIG_PVH), by which QEMU enters it", hint=_MEND)
    banner = re.search(rb"Linux version (\S+)", data)
    return f"Linux {banner[1].decode(errors='replace') if banner else 'of an unknown version'}, entered by PVH"


def _notes(data: mmap.mmap) -> list[bytes]:
    (offset,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    notes = []
    for number in range(count):
        try:
            kind, _, at, _, _, length = struct.unpack_from("<IIQQQQ", data, offset + number * size)
        except struct.error:
            raise HostError("it is cut short", hint=_MEND) from None
        if kind == _PT_NOTE:
            notes.append(data[at : at + length])
    return notes


def _is_pvh(notes: bytes) -> bool:
    at = 0
    while at + 12 <= len(notes):
        name_bytes, described, kind = struct.unpack_from("<III", notes, at)
        name = notes[at + 12 : at + 12 + name_bytes]
        if name == b"Xen\0" and kind == _PVH:
            return True
        at += 12 + name_bytes + -name_bytes % 4 + described + -described % 4
    return False


def image(path: Path) -> str:
    """What image it is. Raises OSError, or HostError for what is no EROFS, or not whole."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        size = os.fstat(fd).st_size
        try:
            filesystems.check(fd, path, "erofs", size)
        except HostError as error:  # its hint is for images of snapshotters
            raise HostError(error.message.removeprefix(f"{path}: "), hint=_MEND) from None
        return f"an EROFS of {size / (1 << 20):.1f} MiB"
    finally:
        os.close(fd)


async def _readable(host: Host, path: Path) -> bool:
    """Whether QEMU's user can open it, by trying; true where there is no such user, which is told elsewhere."""
    try:
        credentials = credentials_of(host.config)
    except ConfigError:
        return True
    said = await host.run([SETPRIV, *credentials.setpriv_args(), "--", "/usr/bin/test", "-r", str(path)])
    return said.status == 0
