"""`qemubox cp`: files into containers and out of them, with docker cp's table, and nothing that reaches beyond."""

import asyncio
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from api import transfer_types_pb2 as types
from harness.box import Box
from harness.copying import begin, copied, copy, refused, tree
from harness.deadline import eventually
from harness.transfer import TAR, opened, received, sent, transfer
from harness.volume import mounted
from ttrpc import Client

pytestmark = pytest.mark.timeout(200)

_MIB = 1 << 20
_DEADLINE_S = 60.0


@pytest.fixture
def place(vm: Box) -> Iterator[Path]:
    """A directory of the host."""
    directory = vm.containerd.cell.directory / "tmp" / f"copy-{vm.new_id()}"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


@contextmanager
def container(box: Box, script: str = "sleep 1000", *options: str) -> Iterator[str]:
    """One that runs until the block is over, if it does not end before."""
    name = box.start("sh", "-c", script, options=("--null-io", *options))
    yield name
    box.kill(name)
    box.wait_stopped(name)
    box.delete_task(name)
    box.remove(name).checked()


def sh(box: Box, name: str, script: str) -> str:
    """What a shell in the container says."""
    ctr = box.containerd.ctr
    return ctr("tasks", "exec", "--exec-id", "e", name, "sh", "-c", script, deadline_s=_DEADLINE_S).checked().text


def make_tree(root: Path) -> None:
    """One of everything that can be copied."""
    (root / "a/b/empty").mkdir(parents=True)
    (root / "a/file").write_bytes(os.urandom(100_001))
    (root / "a/none").write_bytes(b"")
    (root / "a/b/name \udcff\n").write_text("odd")
    os.link(root / "a/file", root / "a/b/again")
    os.symlink("/etc/passwd", root / "absolute")
    os.symlink("nowhere", root / "a/dangling")
    os.link(root / "absolute", root / "a/linked-link", follow_symlinks=False)
    os.mkfifo(root / "a/fifo")
    os.mknod(root / "a/null", 0o20666, os.makedev(1, 3))
    with (root / "sparse").open("wb") as file:
        file.seek(8 * _MIB)
        file.write(b"end")
        file.truncate(16 * _MIB)
    os.setxattr(root / "a/file", "user.note", b"\0\xff")
    (root / "a/suid").write_bytes(b"#!/bin/sh\n")
    os.chown(root / "a/suid", 12, 34)
    (root / "a/suid").chmod(0o4755)
    os.chown(root / "a/dangling", 56, 78, follow_symlinks=False)
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(root / "a/none", "security.capability", capability)
    os.chown(root / "a/b", 1000, 1001)
    (root / "a/b").chmod(0o2751)
    for number, path in enumerate(sorted(root.rglob("*"), reverse=True)):
        moment = 1_500_000_000_123_456_789 + number * 1_000_000_001
        os.utime(path, ns=(moment, moment), follow_symlinks=False)


def test_a_tree_comes_back_as_it_was(vm: Box, place: Path) -> None:
    """With -a to the last bit; without it as harmless as it can be."""
    make_tree(place / "tree")
    before = tree(place / "tree")
    with container(vm) as name:
        copied(vm, "-a", str(place / "tree"), f"{name}:/root/new")
        copied(vm, "-a", f"{name}:/root/new", str(place / "back"))
        assert tree(place / "back") == before
        assert (place / "back/sparse").stat().st_blocks < 1000
        done = copy(vm, f"{name}:/root/new/.", str(place / "plain"))
        assert done.returncode == 0
        assert "null: a device node is not made" in done.stderr.decode()
        plain = tree(place / "plain")
        assert plain.keys() == before.keys() - {"a/null"}
        assert {entry[1] for entry in plain.values()} == {(0, 0)}
        assert [entry[0] for path, entry in plain.items() if path == "a/suid"] == [oct(0o100755)]
        assert {entry[2] for entry in plain.values()} == {entry[2] for entry in before.values()} - {before["a/null"][2]}
        assert "security.capability" not in str(plain)
        assert "user.note" in str(plain)
        # In the container it is root's, as docker's documentation has it.
        copied(vm, str(place / "tree/a/suid"), f"{name}:/root/")
        assert sh(vm, name, "stat -c '%u %g %a' /root/suid").split() == ["0", "0", "4755"]
        # An archive in both directions.
        archive = copied(vm, "-a", f"{name}:/root/new", "-")
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            assert {member.name for member in tar} >= {"new", "new/a/file", "new/a/fifo"}
        sh(vm, name, "mkdir /unpacked")
        copied(vm, "-a", "-", f"{name}:/unpacked", stdin=archive)
        copied(vm, "-a", f"{name}:/unpacked/new", str(place / "again"))
        assert tree(place / "again") == before


@pytest.mark.on("2")
def test_dockers_table(vm: Box, place: Path) -> None:
    """https://docs.docker.com/reference/cli/docker/container/cp/, every row in both directions."""
    (place / "dir").mkdir()
    (place / "dir/f").write_text("in dir")
    (place / "file").write_text("file")
    (place / "link").symlink_to("file")
    (place / "other").write_text("other")
    script = "mkdir /d /d/dir; echo other >/other; ln -s /d /to-d; ln -s /other /to-other; sleep 1000"
    with container(vm, script) as c:
        eventually(lambda: copy(vm, f"{c}:/to-other", "-").returncode == 0, "it is ready", _DEADLINE_S)
        p = str(place)
        # A file: to a new name, over a file, into a directory, through links.
        copied(vm, f"{p}/file", f"{c}:/new")
        copied(vm, f"{p}/file", f"{c}:other")
        copied(vm, f"{p}/file", f"{c}:/d")
        copied(vm, f"{p}/link", f"{c}:/to-d/")
        copied(vm, "-L", f"{p}/link", f"{c}:/d/followed")
        assert sh(vm, c, "cat /new /other /d/file /d/followed; readlink /d/link") == "file" * 5
        copied(vm, f"{p}/other", f"{c}:/to-other")
        assert sh(vm, c, "readlink /to-other; cat /other").split() == ["/other", "other"]
        # A directory: to a new name, into a directory, its contents into one.
        copied(vm, f"{p}/dir", f"{c}:/made")
        copied(vm, f"{p}/dir", f"{c}:/d")
        copied(vm, f"{p}/dir/.", f"{c}:/d")
        assert sh(vm, c, "cat /made/f /d/dir/f /d/f") == "in dir" * 3
        # The same the other way.
        (place / "d/dir").mkdir(parents=True)
        (place / "to-d").symlink_to("d")
        copied(vm, f"{c}:/new", f"{p}/out")
        copied(vm, f"{c}:/new", f"{p}/to-d")
        copied(vm, f"{c}:/made", f"{p}/made")
        copied(vm, f"{c}:/made", f"{p}/d/")
        copied(vm, f"{c}:/made/.", f"{p}/d")
        copied(vm, f"{c}:/to-other", f"{p}/d")
        copied(vm, "-L", f"{c}:/to-other", f"{p}/d/followed")
        assert (place / "out").read_text() == (place / "d/new").read_text() == "file"
        for copy_of in ("made/f", "d/made/f", "d/f"):
            assert (place / copy_of).read_text() == "in dir"
        assert os.readlink(place / "d/to-other") == "/other"
        assert (place / "d/followed").read_text() == "other"
        # What docker refuses.
        for source, destination, words in (
            (f"{p}/file", f"{c}:/nowhere/", "must exist"),
            (f"{p}/file", f"{c}:/nowhere/x", "No such file or directory"),
            (f"{p}/file/", f"{c}:/x", "Not a directory"),
            (f"{p}/file", f"{c}:/other/", "not a directory"),
            (f"{p}/dir", f"{c}:/other", "cannot copy a directory to a file"),
            (f"{c}:/new", f"{p}/nowhere/", "must exist"),
            (f"{c}:/new/", f"{p}/x", "is not a directory"),
            (f"{c}:/made", f"{p}/file", "cannot copy a directory to a file"),
            (f"{c}:/nothing", p, f"{c}:/nothing: no such file or directory"),
            (f"{p}/nothing", f"{c}:/", "No such file or directory"),
            (f"{p}/nothing", p, "neither"),
            (f"{c}:/a", f"{c}:/b", "between containers"),
            ("no-such:/a", p, "container no-such has no machine"),
            (f"{c}:", p, "a path is missing"),
            ("-", f"{c}:/other", "no directory"),
        ):
            assert words in refused(vm, source, destination), (source, destination)
        assert "no whole tar archive" in refused(vm, "-", f"{c}:/d", stdin=b"x" * 2000)


def test_volumes_and_memory_are_seen_as_the_container_sees_them(vm: Box, place: Path) -> None:
    """What is mounted in it, as docker has it; the kernel's own file systems are left empty."""
    tmpfs = "type=tmpfs,src=tmpfs,dst=/memory,options=rw"
    with container(
        vm, "echo in memory >/memory/f; mkdir /tree; mount | grep memory; sleep 1000", "--mount", tmpfs
    ) as c:
        eventually(lambda: copy(vm, f"{c}:/tree", "-").returncode == 0, "it is ready", _DEADLINE_S)
        copied(vm, f"{c}:/memory/f", str(place))
        assert (place / "f").read_text() == "in memory\n"
        (place / "f").write_text("from the host")
        copied(vm, str(place / "f"), f"{c}:/memory/g")
        assert sh(vm, c, "cat /memory/g; ls /tree") == "from the host"
        done = copy(vm, f"{c}:/", str(place / "all"))
        assert done.returncode == 0
        assert (place / "all/memory/g").read_text() == "from the host"
        assert (place / "all/bin/busybox").stat().st_size > _MIB
        assert [*(place / "all/proc").iterdir()] == [*(place / "all/sys").iterdir()] == []
        assert "no size" in refused(vm, f"{c}:/proc/version", str(place))


def test_the_hosts_volumes_are_copied_from_and_to(vm: Box, place: Path) -> None:
    (place / "volume").mkdir()
    (place / "volume/f").write_text("on the host")
    with container(vm, "sleep 1000", *mounted(place / "volume", "/v"), *mounted(place / "volume", "/ro", "ro")) as c:
        copied(vm, f"{c}:/v", str(place / "out"))
        assert (place / "out/f").read_text() == "on the host"
        copied(vm, str(place / "out"), f"{c}:/v/")
        assert (place / "volume/out/f").read_text() == "on the host"
        assert "Read-only file system" in refused(vm, str(place / "out/f"), f"{c}:/ro/g")


@pytest.mark.on("2")
def test_owners_are_those_of_the_containers_users(vm: Box, place: Path) -> None:
    """Root in a user namespace is root here as well; nobody's are not copied out of the range."""
    maps = ("--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536", "--remap-labels")
    with container(vm, "touch /e; chown 5:6 /e; mv /e /f; sleep 1000", *maps) as c:
        eventually(lambda: copy(vm, f"{c}:/f", "-").returncode == 0, "it is ready", _DEADLINE_S)
        copied(vm, "-a", f"{c}:/f", str(place))
        assert ((place / "f").stat().st_uid, (place / "f").stat().st_gid) == (5, 6)
        copied(vm, "-a", str(place / "f"), f"{c}:/g")
        copied(vm, str(place / "f"), f"{c}:/h")
        assert sh(vm, c, "stat -c '%u %g' /g /h").split("\n") == ["5 6", "0 0"]


@pytest.mark.on("2")
def test_no_link_leads_out_of_the_container(vm: Box, place: Path) -> None:
    """Absolute ones are the container's, and those of /proc lead nowhere else; nor do any on the host lead out."""
    script = """
        ln -s / /root-link; ln -s ../../../../../../etc /up; ln -s /proc/1/root/etc /magic; ln -s /loop /loop
        ln -s /etc /tree-link; mkdir -p /tree/sub; ln -s /etc /tree/planted; echo x >/tree/sub/planted-file; sleep 1000
    """
    with container(vm, script) as c:
        eventually(lambda: copy(vm, f"{c}:/tree/sub/planted-file", "-").returncode == 0, "it is ready", _DEADLINE_S)
        (place / "passwd").write_text("from the host")
        for path in ("/up/a", "/root-link/etc/b", "/tree-link/c", "/tree/planted/d"):
            copied(vm, str(place / "passwd"), f"{c}:{path}")
        assert sh(vm, c, "cd /etc; cat a b c d") == "from the host" * 4
        for link in ("/magic/x", "/loop"):
            assert "Too many levels of symbolic links" in refused(vm, str(place / "passwd"), f"{c}:{link}/x")
        assert "Too many levels" in refused(vm, f"{c}:/magic/hostname", str(place))
        # A tree that is copied is not written through a link that was there before.
        (place / "victim").mkdir()
        (place / "out/tree/sub").mkdir(parents=True)
        (place / "out/tree/sub/planted-file").symlink_to(place / "victim/file")
        copied(vm, f"{c}:/tree", str(place / "out"))
        assert (place / "out/tree/sub/planted-file").read_text() == "x\n"
        assert os.readlink(place / "out/tree/planted") == "/etc"
        shutil.rmtree(place / "out/tree/sub")
        (place / "out/tree/sub").symlink_to(place / "victim")
        assert "does not take the place" in refused(vm, f"{c}:/tree", str(place / "out"))
        assert [*(place / "victim").iterdir()] == []
        # Nor in the container.
        (place / "in/tree/planted").mkdir(parents=True)
        (place / "in/tree/planted/passwd").write_text("never")
        assert "does not take the place" in refused(vm, str(place / "in/tree"), f"{c}:/")
        assert sh(vm, c, "grep never /etc/passwd || echo no").strip() == "no"


def test_a_paused_container_is_read_and_not_written_to(vm: Box, place: Path) -> None:
    with container(vm, "echo paused >/f; sleep 1000") as c:
        eventually(lambda: copy(vm, f"{c}:/f", "-").returncode == 0, "it is ready", _DEADLINE_S)
        writing = begin(vm, "-", f"{c}:/root", stdin=subprocess.PIPE)
        assert writing.stdin is not None
        archive = _archive("big", 4 * _MIB)
        writing.stdin.write(archive[: 2 * _MIB])
        writing.stdin.flush()
        eventually(lambda: sh(vm, c, "ls /root").strip() == "big", "it is being written", _DEADLINE_S)
        vm.containerd.ctr("tasks", "pause", c).checked()
        copied(vm, f"{c}:/f", str(place))
        assert (place / "f").read_text() == "paused\n"
        assert "is paused, and nothing can be written" in refused(vm, str(place / "f"), f"{c}:/g")
        vm.containerd.ctr("tasks", "resume", c).checked()
        # What the pause has caught goes on.
        out, error = writing.communicate(archive[2 * _MIB :], _DEADLINE_S)
        assert (writing.returncode, out, error) == (0, b"", b"")
        assert sh(vm, c, "stat -c %s /root/big; ls /g 2>&1 | wc -l").split() == [str(4 * _MIB), "1"]


def _archive(name: str, size: int) -> bytes:
    """A tar archive with a file of random bytes in it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = size
        tar.addfile(info, io.BytesIO(os.urandom(size)))
    return out.getvalue()


def test_one_that_has_ended_is_read(vm: Box, place: Path) -> None:
    """As long as its task is there; afterwards there is no machine, and that is said."""
    c = vm.start("sh", "-c", "echo left >/f; exit 3")
    vm.wait_stopped(c)
    copied(vm, f"{c}:/f", str(place))
    assert (place / "f").read_text() == "left\n"
    vm.delete_task(c)
    assert "nerdctl cp" in refused(vm, f"{c}:/f", str(place))
    vm.remove(c).checked()


def test_what_is_copied_into_one_that_has_ended_stays(vm: Box, place: Path) -> None:
    """It comes back to the snapshot, as what it wrote itself has: its next start finds it."""
    c = vm.start("test", "-e", "/in/f")
    vm.wait_stopped(c)
    (place / "in").mkdir()
    (place / "in/f").write_text("from the host")
    copied(vm, str(place / "in"), f"{c}:/")
    assert "exit code 1" in vm.delete_task(c).error
    vm.containerd.ctr("tasks", "start", "--null-io", c, deadline_s=_DEADLINE_S).checked()
    vm.remove(c).checked()


def test_the_hosts_pid_shows_nothing_of_it(vm: Box) -> None:
    """`nerdctl cp` looks into the root directory of the task's pid: it finds nothing, and can put nothing there."""
    with container(vm) as c:
        root = Path(f"/proc/{vm.task_pid(c)}/root")
        assert [*root.iterdir()] == []
        with pytest.raises(OSError, match="Read-only file system"):
            (root / "f").write_text("never")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_who_gives_up_leaves_nothing_behind(vm: Box, place: Path, number: int) -> None:
    """No process in the guest, no stream in the shim; after ^C no half of a file either."""
    with container(vm, "head -c 8m /dev/zero >/big; touch /ready; sleep 1000") as c:
        eventually(lambda: copy(vm, f"{c}:/ready", "-").returncode == 0, "it is ready", _DEADLINE_S)
        shim = vm.shim(c)
        before = shim.num_fds()
        reading = begin(vm, f"{c}:/big", "-")
        writing = begin(vm, "-", f"{c}:/root", stdin=subprocess.PIPE)
        assert reading.stdout is not None
        assert writing.stdin is not None
        assert len(os.read(reading.stdout.fileno(), 1)) == 1  # and no more: it waits for us
        writing.stdin.write(_archive("half", 4 * _MIB)[: 3 * _MIB])
        writing.stdin.flush()
        eventually(lambda: sh(vm, c, "ls /root").strip() == "half", "it is being written", _DEADLINE_S)
        for process in (reading, writing):
            process.send_signal(number)
            assert process.wait(_DEADLINE_S) == (130 if number == signal.SIGINT else -number)
            process.communicate()
        eventually(lambda: shim.num_fds() <= before, "the shim has let go of it", _DEADLINE_S)
        eventually(lambda: sh(vm, c, "ls /root") == "", "the guest has, too", _DEADLINE_S)
        copied(vm, f"{c}:/ready", str(place))


def test_64_mib_both_ways(vm: Box, place: Path) -> None:
    """What was measured is in docs/decisions/0031."""
    data = os.urandom(64 * _MIB)
    (place / "in").write_bytes(data)
    with container(vm) as c:
        began = time.monotonic()
        copied(vm, str(place / "in"), f"{c}:/big")
        there = time.monotonic()
        assert sh(vm, c, "sha256sum </big").split()[0] == hashlib.sha256(data).hexdigest()
        back = time.monotonic()
        copied(vm, f"{c}:/big", str(place / "out"))
        took = time.monotonic() - back
        assert (place / "out").read_bytes() == data
        print(f"in {64 / (there - began):.1f} MiB/s, out {64 / took:.1f} MiB/s")


@pytest.mark.on("2")
def test_a_full_disk_is_said_on_either_side(vm: Box, place: Path) -> None:
    small = place / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=True)
    try:
        options = ("--mount", "type=tmpfs,src=tmpfs,dst=/small,options=rw:size=1m")
        with container(vm, "head -c 3m /dev/zero >/big; touch /ready; sleep 1000", *options) as c:
            eventually(lambda: copy(vm, f"{c}:/ready", "-").returncode == 0, "it is ready", _DEADLINE_S)
            (place / "big").write_bytes(bytes(3 * _MIB))
            assert "No space left on device" in refused(vm, str(place / "big"), f"{c}:/small/big")
            assert sh(vm, c, "ls /small") == ""
    finally:
        subprocess.run(["umount", small], check=True)


def test_containerds_transfer_service(vm: Box) -> None:
    """On the shim's socket, asked as containerd's client asks; the directory is made."""
    archive = _archive("f", 3 * _MIB)
    with container(vm) as c:
        back = asyncio.run(_there_and_back(vm, c, archive))
        assert "owner=7" not in sh(vm, c, "stat -c owner=%u /new/dir/f")
    with tarfile.open(fileobj=io.BytesIO(archive)) as there, tarfile.open(fileobj=io.BytesIO(back)) as here:
        assert here.getnames() == ["dir", "dir/f"]
        contents = [tar.extractfile(name) for tar, name in ((there, "f"), (here, "dir/f"))]
        assert contents[0] is not None
        assert contents[1] is not None
        assert contents[0].read() == contents[1].read()


async def _there_and_back(vm: Box, name: str, archive: bytes) -> bytes:
    (known,) = vm.containerd.cell.path("/run/qemubox/vm").glob("*/address.json")
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    path = str(vm.containerd.cell.path(json.loads(known.read_text())["socket"]))
    await asyncio.get_running_loop().sock_connect(sock, path)
    client = Client(sock)
    place = types.ContainerPath(container_id=name, path="/new/dir")
    async with opened(client, "in") as channel:
        sending = asyncio.create_task(sent(channel, archive))
        await transfer(client, types.ReadStream(stream="in", media_type=TAR), place)
        await sending
    async with opened(client, "out") as channel:
        receiving = asyncio.create_task(received(channel))
        await transfer(client, place, types.WriteStream(stream="out", media_type=TAR))
        back = await receiving
    await client.close()
    return back
