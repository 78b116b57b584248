"""mkfs.erofs, mkfs.ext4 and virtiofsd, of all the versions that are known for something."""

import os

import pytest

from shim.check import programs
from shim.errors import HostError
from tests.unit.shim.check.conftest import FakeHost, Say

_EXT4 = 'echo "mke2fs 1.47.0 (5-Feb-2023)" >&2'


@pytest.mark.parametrize(
    ("said", "level", "words"),
    [
        ("mkfs.erofs 1.4", "failure", "older than 1.5"),
        ("mkfs.erofs 1.5", "warning", "holes take 5 s"),
        ("mkfs.erofs 1.6", "warning", "erofs differ"),
        ("mkfs.erofs (erofs-utils) 1.8.4", "warning", "255 bytes"),
        ("mkfs.erofs (erofs-utils) 1.8.6", "ok", "erofs-utils 1.8.6"),
        ("mkfs.erofs (erofs-utils) 1.10", "ok", "erofs-utils 1.10"),
        ("something else", "failure", "no mkfs.erofs"),
    ],
)
async def test_erofs(said: str, level: str, words: str, fake: FakeHost, say: Say) -> None:
    fake.program("mkfs.erofs", f"echo '{said}'; exit 1")
    found = (await say(programs.look)).told("mkfs.erofs")
    assert found[0] == level
    assert words in found[1]


async def test_what_is_missing(fake: FakeHost, say: Say) -> None:
    said = await say(programs.look)
    assert said.told("mkfs_erofs")[::2] == ("failure", "apt-get install erofs-utils")
    assert said.told("mkfs_ext4")[::2] == ("failure", "apt-get install e2fsprogs")


async def test_ext4(fake: FakeHost, say: Say) -> None:
    fake.program("mkfs.ext4", _EXT4)
    assert (await say(programs.look)).told("mkfs.ext4")[:2] == ("ok", "e2fsprogs 1.47.0")
    fake.program("mkfs.ext4", "echo busybox")
    assert (await say(programs.look)).told("mkfs.ext4")[0] == "failure"


@pytest.mark.parametrize(
    ("script", "level", "words"),
    [
        ('echo "virtiofsd version 7.2.22 (Debian)"', "ok", "QEMU's own"),
        ('echo "virtiofsd 1.13.2"', "ok", "virtiofsd 1.13.2"),
        ("echo nothing", "failure", "no virtiofsd"),
        ("exit 3", "failure", "no virtiofsd"),
    ],
)
async def test_virtiofsd(script: str, level: str, words: str, fake: FakeHost, say: Say) -> None:
    fake.configure("volumes", daemon=str(fake.program("virtiofsd", script)))
    found = (await say(programs.look)).told("virtiofsd")
    assert found[0] == level
    assert words in found[1]


async def test_no_virtiofsd_is_no_failure(fake: FakeHost, say: Say) -> None:
    fake.configure("volumes", daemon="/nowhere/virtiofsd")
    found = (await say(programs.look)).told("virtiofsd")
    assert found[:2] == (
        "warning",
        "volumes.daemon = '/nowhere/virtiofsd': no such program: containers with volumes are refused",
    )


async def test_one_that_hangs_is_ended(fake: FakeHost) -> None:
    program = fake.program("slow", "exec /bin/sleep 1000")
    with pytest.raises(HostError, match="does not end within"):
        await fake.host.run([str(program)], deadline_s=0.2)


async def test_the_real_ones(fake: FakeHost, say: Say) -> None:
    fake.host.environ = {"PATH": os.environ["PATH"]}
    assert not [line for line in await say(programs.look) if line.level == "failure"]
