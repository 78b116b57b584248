"""`qemubox cp`: files into containers and out of them, with docker cp's table, and nothing that reaches beyond."""

import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from harness.box import Box
from harness.copying import container, copied, copy, refused, sh, tree
from harness.copying import place as place
from harness.deadline import eventually
from harness.volume import mounted

pytestmark = pytest.mark.timeout(200)

_MIB = 1 << 20
_DEADLINE_S = 60.0


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


@pytest.mark.release
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
