"""Kernels and images: made up ones, whole and broken. Needs root, and the user nobody."""

import struct
from pathlib import Path

import pytest

from shim.check import guest
from shim.errors import HostError
from tests.unit.shim.check.conftest import FakeHost, Say


def _note(name: bytes, kind: int) -> bytes:
    return struct.pack("<III", len(name), 4, kind) + name + bytes(-len(name) % 4) + b"\0\0\0\1"


def _kernel(*notes: bytes, machine: int = 62, offset: int = 64) -> bytes:
    """An ELF file with one segment of notes."""
    content = b"".join(notes)
    header = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, offset, 0, 0, 64, 56, 1, 0, 0, 0)
    )
    segment = struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(content), len(content), 4)
    return header + segment + content + bytes(600) + b"Linux version 6.12.117-qemubox (builder) #1\0"


_PVH = _note(b"Xen\0", 18)


@pytest.fixture
def user(fake: FakeHost, tmp_path: Path) -> None:
    """Somebody who is not root, and may look into the test's directory."""
    fake.configure("runtime", user="nobody")
    fake.host.environ = {"PATH": "/usr/bin:/bin"}
    for path in (tmp_path, *tmp_path.parents):
        if str(path).startswith("/tmp/"):
            path.chmod(0o755)


def _files(fake: FakeHost, tmp_path: Path, kernel: bytes, image: bytes) -> None:
    (tmp_path / "vmlinux").write_bytes(kernel)
    (tmp_path / "image").write_bytes(image)
    fake.configure("vm", kernel=str(tmp_path / "vmlinux"), image=str(tmp_path / "image"))


def _image(size: int = 8192, blocks: int = 2) -> bytes:
    head = bytearray(size)
    head[1024:1028] = b"\xe2\xe1\xf5\xe0"
    head[1024 + 12] = 12
    struct.pack_into("<I", head, 1024 + 36, blocks)
    return bytes(head)


@pytest.mark.usefixtures("user")
async def test_good_ones(fake: FakeHost, tmp_path: Path, say: Say) -> None:
    _files(fake, tmp_path, _kernel(_note(b"GNU\0", 3), _PVH), _image())
    said = await say(guest.look)
    assert said.told("vm.kernel")[:2] == ("ok", "Linux 6.12.117-qemubox, entered by PVH")
    assert said.told("vm.image")[:2] == ("ok", "an EROFS of 0.0 MiB")


@pytest.mark.usefixtures("user")
async def test_ones_that_are_not_there(fake: FakeHost, say: Say) -> None:
    fake.configure("vm", kernel="/nowhere/vmlinux", image="/nowhere/image")
    said = await say(guest.look)
    assert [(line.level, line.found) for line in said] == [("failure", "No such file or directory")] * 2


@pytest.mark.usefixtures("user")
async def test_what_qemu_may_not_read(fake: FakeHost, tmp_path: Path, say: Say) -> None:
    """For want of rights on the file, or on the way to it."""
    _files(fake, tmp_path, _kernel(_PVH), _image())
    (tmp_path / "vmlinux").chmod(0o600)
    found = (await say(guest.look)).told("vm.kernel")
    assert found[0] == "failure"
    assert "the user nobody cannot read it" in found[1]
    (tmp_path / "vmlinux").chmod(0o644)
    tmp_path.chmod(0o700)
    assert [line.level for line in await say(guest.look)] == ["failure", "failure"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (bytes(0x202) + b"HdrS" + bytes(512), "bzImage"),
        (b"no kernel at all" + bytes(600), "no ELF file"),
        (_kernel(_PVH, machine=183), "no ELF file"),
        (_kernel(_note(b"GNU\0", 18)), "no PVH entry"),
        (_kernel(), "no PVH entry"),
        (_kernel(_PVH, offset=1 << 40), "cut short"),
    ],
)
def test_no_kernel_that_can_be_entered(data: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(data)
    with pytest.raises(HostError, match=why):
        guest.kernel(path)


@pytest.mark.parametrize(
    ("data", "why"), [(bytes(8192), "holds no erofs"), (_image(blocks=3), "cut short"), (b"", "holds no")]
)
def test_no_whole_image(data: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(data)
    with pytest.raises(HostError, match=why) as raised:
        guest.image(path)
    assert "install.sh" in raised.value.hint
    assert str(path) not in raised.value.message


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize("content", [b"", b"\x7fELF\x02\x01\x01"])
async def test_a_kernel_that_is_nearly_nothing(content: bytes, fake: FakeHost, tmp_path: Path, say: Say) -> None:
    _files(fake, tmp_path, content, _image())
    assert (await say(guest.look)).told("vm.kernel")[0] == "failure"
