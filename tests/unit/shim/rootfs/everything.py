"""A tree of files with everything that a layer may consist of, and what conversions have been known to lose."""

import os
import stat
import struct
from pathlib import Path


def fill(root: Path) -> None:
    """Fill an empty directory."""
    _fill_with_kinds(root)
    _fill_with_sizes(root)
    _fill_with_owners_and_attributes(root)
    _fill_with_many(root)
    for path, time_ns in (
        ("empty", 123456789_987654321),
        ("bin", -5_000_000_001),
        ("many/file7", 4102444800_000000001),
        ("many/file8", 15032385535_999999999),  # the last second that ext4 has: 2446
        ("many/file9", -2147483648_000000000),
        ("many/file10", 0),
        ("many/file11", 1),
    ):
        os.utime(root / path, ns=(0, time_ns))


def _fill_with_kinds(root: Path) -> None:
    (root / "bin").mkdir(mode=0o755)
    program = root / "bin" / "program"
    program.write_bytes(bytes(range(256)) * 100)
    program.chmod(0o6755)
    os.setxattr(program, "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    (root / "link").symlink_to("bin/program")
    os.symlink("x" * 4095, root / "long link")
    os.symlink(b"\xff\xfe", os.fsencode(root / "link that is not UTF-8"))
    os.mknod(root / "whiteout", stat.S_IFCHR, os.makedev(0, 0))
    os.mknod(root / "disk", stat.S_IFBLK | 0o660, os.makedev(259, 1048575))
    os.mknod(root / "tty", stat.S_IFCHR | 0o620, os.makedev(4095, 255))
    os.mkfifo(root / "fifo")
    os.mknod(root / "socket", stat.S_IFSOCK | 0o777)
    for name in ("bin/program", "link", "disk", "tty", "fifo", "socket", "whiteout"):
        os.link(root / name, root / f"hard {name.replace('/', ' ')}", follow_symlinks=False)
    (root / "opaque").mkdir(mode=0o1777)
    os.setxattr(root / "opaque", "trusted.overlay.opaque", b"y")
    (root / "opaque" / "inside").write_text("only this")
    for strange in (b"new\nline", b"\xff\xfe not UTF-8", b"n" * 254, b" ", b"\\"):
        Path(os.fsdecode(os.fsencode(root) + b"/" + strange)).write_bytes(strange)


def _fill_with_sizes(root: Path) -> None:
    """Around what fits behind an inode, with attributes and without; holes at every place of a file."""
    for size in (1, 4031, 4032, 4033, 4095, 4096, 4097, 8191, 8192, 65535, 65536, 65537):
        (root / f"of {size} bytes").write_bytes(bytes([size % 251]) * size)
        (root / f"of {size} bytes with attributes").write_bytes(bytes([size % 241]) * size)
        os.setxattr(root / f"of {size} bytes with attributes", "user.size", b"s" * (size % 300))
    with (root / "holes").open("wb") as file:
        for at in (1 << 20, (2 << 20) - 1, 3 << 20):
            os.pwrite(file.fileno(), b"data", at)
        file.truncate((4 << 20) + 7)
    os.link(root / "holes", root / "hard holes")
    (root / "nothing but a hole").touch()
    os.truncate(root / "nothing but a hole", 3 << 20)


def _fill_with_owners_and_attributes(root: Path) -> None:
    (root / "empty").touch()
    os.chown(root / "empty", 4294967290, 3000000000)
    os.setxattr(root / "empty", "user.note", b"zero\0byte")
    os.setxattr(root / "empty", "user.empty", b"")
    os.setxattr(root / "empty", "user." + "n" * 250, b"long name")
    (root / "large attribute").touch()
    os.setxattr(root / "large attribute", "user.large", bytes(range(256)) * 14)
    os.chown(root / "large attribute", 65536, 4294967294)
    os.chown(root / "link", 70000, 65535, follow_symlinks=False)
    os.setxattr(root / "link", "trusted.of.a.link", b"kept", follow_symlinks=False)
    os.setxattr(root / "fifo", "trusted.of.a.fifo", b"kept")
    (root / "acl").mkdir()
    os.setxattr(root / "acl", "system.posix_acl_access", _acl({(2, 4000000000): 5, (8, 12): 2}))
    os.setxattr(root / "acl", "system.posix_acl_default", _acl({(2, 1000): 7}))


def _acl(named: dict[tuple[int, int], int]) -> bytes:
    """A POSIX ACL as the kernel has it (linux/posix_acl_xattr.h), with further entries (tag, id): permissions."""
    nobody = 2**32 - 1
    entries = {(1, nobody): 7, (4, nobody): 5, (16, nobody): 7, (32, nobody): 0, **named}
    return struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, bits, who) for (tag, who), bits in sorted(entries.items())
    )


def _fill_with_many(root: Path) -> None:
    """Entries of a directory, names of a file, attributes that files share, directories in directories."""
    many = root / "many"
    many.mkdir()
    for number in range(3000):
        (many / f"file{number}").touch()
    for number in range(500):
        os.setxattr(many / f"file{number}", "security.shared", b"by many files")
        os.link(root / "empty", many / f"link{number}")
    deep = root
    for number in range(300):
        deep /= f"d{number % 10}"
        deep.mkdir()
    (deep / "bottom").write_text("deep")
