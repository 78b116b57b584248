"""Directories and files of the host in a container, as a bind mount of runc's shows them."""

import hashlib
import json
import os
import stat
import time
from pathlib import Path

import pytest

from harness.box import Box
from harness.flavours import CHECKOUT
from harness.images import NOBODYS
from harness.volume import end, execute, mounted
from harness.volume import volume as volume

pytestmark = pytest.mark.timeout(200)

_MIB = 1 << 20
# More than is copied into a container, so that a read-only file is mounted, too.
_LARGE = b"0123456789abcdef" * (2 * _MIB // 16)
# What the host changes is seen by then: the guest's knowledge is good for a second.
_SEEN_S = 3.0
# The host's programs, for an image that has busybox alone.
_HOSTS_PROGRAMS = (
    *mounted(Path("/usr"), "/usr", "ro"),
    *mounted(Path("/usr/lib"), "/lib", "ro"),
    *mounted(Path("/usr/lib64"), "/lib64", "ro"),
)


def test_directories_and_files(box: Box, volume: Path) -> None:
    """Writable and not, seen from both sides at once."""
    for name in ("rw", "ro"):
        (volume / name).mkdir()
        (volume / name / "host").write_text("of the host\n")
    (volume / "file-rw").write_text("first\n")
    (volume / "file-ro").write_bytes(_LARGE)
    options = (
        *mounted(volume / "rw", "/rw"),
        *mounted(volume / "ro", "/ro", "ro"),
        *mounted(volume / "file-rw", "/file/rw"),
        *mounted(volume / "file-ro", "/file/ro", "ro"),
    )
    container = box.start("sleep", "1000", options=("--null-io", *options))
    script = (
        "cat /rw/host /ro/host /file/rw; sha256sum < /file/ro; ls /file;"
        " echo of the container > /rw/mine; echo second >> /file/rw; exec 2>&-;"
        " for f in /ro/new /ro/host /file/ro; do echo x >>$f || echo refused; done; rm /ro/host || echo refused"
    )
    said = execute(box, container, script).checked().text.splitlines()
    digest = hashlib.sha256(_LARGE).hexdigest()
    assert said == ["of the host"] * 2 + ["first", f"{digest}  -", "ro", "rw", *["refused"] * 4]
    assert (volume / "rw" / "mine").read_text() == "of the container\n"
    assert (volume / "file-rw").read_text() == "first\nsecond\n"
    assert (volume / "ro" / "host").read_text() == "of the host\n"
    with (volume / "file-rw").open("a") as file:
        file.write("third\n")
    (volume / "rw" / "host").write_text("changed\n")
    (volume / "rw" / "new").write_text("new\n")
    time.sleep(_SEEN_S)
    said = execute(box, container, "cat /file/rw /rw/host /rw/new").checked().text.split()
    assert said == ["first", "second", "third", "changed", "new"]
    end(box, container)


def test_a_directory_is_swapped_by_a_symbolic_link(box: Box, volume: Path) -> None:
    """As the kubelet does it with what it projects: files lead through `..data`, which rename(2) puts elsewhere."""
    for number in (1, 2):
        (volume / f"..{number}").mkdir()
        (volume / f"..{number}" / "key").write_text(f"value {number}")
    (volume / "..data").symlink_to("..1")
    (volume / "key").symlink_to("..data/key")
    container = box.start("sleep", "1000", options=("--null-io", *mounted(volume, "/v", "ro")))
    assert execute(box, container, "cat /v/key").checked().text == "value 1"
    (volume / "..new").symlink_to("..2")
    (volume / "..new").rename(volume / "..data")
    since = time.monotonic()
    said = execute(box, container, "while [ $(cut -c 7 /v/key) = 1 ]; do sleep 0.1; done; cat /v/key").checked().text
    assert said == "value 2"
    assert time.monotonic() - since < 30
    end(box, container)


@pytest.mark.on("1.6")
def test_what_a_program_can_do(box: Box, volume: Path) -> None:
    """Run by the host's own Python, which is in volumes, too."""
    options = (*_HOSTS_PROGRAMS, *mounted(volume), *mounted(CHECKOUT / "tests" / "vm", "/probe", "ro"))
    done = box.run("/usr/bin/python3", "-IS", "/probe/volume_probe.py", "/v", options=options, deadline_s=90)
    said = json.loads(done.checked().text)
    assert said == {
        "rename": ["one", ["three"]],
        "small_files": [44850, 150],
        "mapped": "\0\0000123456789\0\0",
        "locked": [1, 0, 1, 0],
        "attributes": [["security.capability", "user.colour"], ["user.colour"], "red"],
        "access_list": [0, 1, "0o40750"],
        "sync": 100000,
        "holes": [(64 << 20) + 3, True],
        "links": [2, "0o106755", 1234, 5678, "linked"],
        "unlinked": ["still here", 0],
        "appended": "abc",
    }
    first = (volume / "first").stat()
    assert (first.st_uid, first.st_gid, stat.S_IMODE(first.st_mode), first.st_nlink) == (1234, 5678, 0o6755, 2)
    device = (volume / "device").lstat()
    assert stat.S_ISCHR(device.st_mode)
    assert device.st_rdev == os.makedev(1, 3)
    assert stat.S_ISFIFO((volume / "fifo").lstat().st_mode)
    assert os.getxattr(volume / "attributes", "user.colour") == b"red"
    assert (volume / "mapped").read_bytes()[4090:4100] == b"0123456789"
    assert (volume / "sparse").stat().st_blocks < 1000


def test_what_the_host_has_is_seen_as_it_is(box: Box, volume: Path) -> None:
    """Owners, modes and times; a user of the container's is kept out by them."""
    (volume / "secret").write_text("secret")
    os.chown(volume / "secret", 4321, 8765)
    (volume / "secret").chmod(0o4640)
    os.utime(volume / "secret", (1, 1700000000))
    script = 'stat -c "%u %g %a %Y %s" /v/secret; cat /v/secret'
    box.containerd.import_image(NOBODYS)
    done = box.run("sh", "-c", script, options=mounted(volume), image=NOBODYS)
    assert done.text == "4321 8765 4640 1700000000 6"
    assert "ermission denied" in done.error


@pytest.mark.release
def test_twenty_volumes(box: Box, volume: Path) -> None:
    """Of which later ones lie in earlier ones."""
    options: list[str] = []
    for number in range(20):
        (volume / str(number) / "in").mkdir(parents=True)
        (volume / str(number) / "name").write_text(f"{number}\n")
        at = "/v" if not number else f"/v/in{'/in' * (number - 1)}"
        options += mounted(volume / str(number), at)
    script = "cd /v; while cat name; do cd in; done 2>&-"
    assert box.run("sh", "-c", script, options=options).text.split() == [str(number) for number in range(20)]


@pytest.mark.release
@pytest.mark.on("1.6")
def test_a_large_file(box: Box, volume: Path) -> None:
    """Both ways, whole."""
    content = os.urandom(_MIB) * 64
    (volume / "in").write_bytes(content)
    script = "sha256sum < /v/in; dd if=/v/in of=/v/out bs=1M 2>&-; sync"
    assert box.run("sh", "-c", script, options=mounted(volume)).text.split()[0] == hashlib.sha256(content).hexdigest()
    assert (volume / "out").read_bytes() == content


def test_symbolic_links_lead_nowhere_on_the_host(box: Box, volume: Path) -> None:
    """Whichever way they point out of the volume, they mean the container's files."""
    secret = volume.parent / f"{volume.name}.secret"
    secret.write_text("of the host")
    inside = volume / "inside"
    inside.mkdir()
    (inside / "absolute").symlink_to(secret)
    (inside / "up").symlink_to("../" * 20 + str(secret).lstrip("/"))
    (inside / "beside").symlink_to(f"../../{secret.name}")
    (inside / "hostname").symlink_to("/etc/mine")
    (inside / "proc").symlink_to("/proc/1/root/etc/mine")
    script = (
        "echo of the container > /etc/mine; cd /v; for f in absolute up beside; do cat $f 2>&- || echo nothing; done;"
        " cat hostname proc; echo overwritten > hostname; cat /etc/mine; ls -A /v/.. | grep -c ."
    )
    said = box.run("sh", "-c", script, options=mounted(inside)).text.splitlines()
    assert said[:6] == [*["nothing"] * 3, *["of the container"] * 2, "overwritten"]
    assert secret.read_text() == "of the host"
    secret.unlink()


def test_a_source_that_is_a_symbolic_link(box: Box, volume: Path) -> None:
    """It is followed on the host, once."""
    (volume / "real").mkdir()
    (volume / "real" / "file").write_text("here")
    (volume / "link").symlink_to("real")
    assert box.run("cat", "/v/file", options=mounted(volume / "link")).text == "here"


def test_options_of_the_mount(box: Box, volume: Path) -> None:
    """noexec, and what is mounted in a volume on the host goes with it only by rbind."""
    (volume / "program").write_text("#!/bin/sh\necho ran\n")
    (volume / "program").chmod(0o755)
    assert box.run("/v/program", options=mounted(volume)).text == "ran"
    done = box.run("sh", "-c", "/v/program || echo refused", options=mounted(volume, "/v", "rw:noexec"))
    assert done.text == "refused"
