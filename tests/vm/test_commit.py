"""`qemubox commit`: what becomes of a container's changes, and what is refused, on real containerds."""

import json
import os
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from harness import commit
from harness.box import RUNTIMES, Box
from harness.deadline import eventually
from harness.distros import BUSYBOX as DISTRO
from harness.distros import archive
from harness.images import BUSYBOX, LAYERS

pytestmark = pytest.mark.timeout(200)

_NEW: Final = "localhost/qemubox/committed:1"


def _commit(box: Box, *words: str) -> str:
    """The digest that a commit gives."""
    done = commit.commit(box, *words)
    assert done.returncode == 0, done.stderr
    name, digest = done.stdout.split()
    assert digest.startswith("sha256:")
    assert name
    return digest


def _refused(box: Box, *words: str) -> str:
    """What a commit says that is refused, which leaves nothing: no image, lease or blob, nothing paused."""
    before = _stores(box)
    done = commit.commit(box, *words)
    assert done.returncode == 1, done
    assert done.stdout == ""
    _assert_one_line(done.stderr)
    _assert_nothing_new(box, before)
    return done.stderr


def _assert_one_line(said: str) -> None:
    assert said.startswith("qemubox: "), said
    assert len(said.splitlines()) == 1, said


def _stores(box: Box, namespace: str = "default") -> list[set[str]]:
    """All names that containerd's stores have in a namespace."""
    commands = (
        ("images", "ls", "-q"),
        ("content", "ls", "-q"),
        ("leases", "ls", "-q"),
        ("content", "active"),
        ("snapshots", "ls"),
        ("tasks", "ls"),
    )
    return [{*box.containerd.ctr(*words, namespace=namespace).checked().text.splitlines()} for words in commands]


def _assert_nothing_new(box: Box, before: list[set[str]]) -> None:
    """What others have left may be collected meanwhile."""
    assert [after - had for after, had in zip(_stores(box), before, strict=True)] == [set() for _ in before]


def _config(box: Box, digest: str) -> dict[str, object]:
    """The configuration of the image with that manifest."""
    manifest = json.loads(box.containerd.ctr("content", "get", digest).checked().stdout)
    document = json.loads(box.containerd.ctr("content", "get", manifest["config"]["digest"]).checked().stdout)
    assert isinstance(document, dict)
    return document


@pytest.mark.every_containerd
def test_a_running_container_becomes_an_image_and_goes_on(box: Box) -> None:
    """Upon a hundred layers; the image is whole, unpacked, exported and imported again."""
    box.containerd.import_image(LAYERS)
    with box.events() as events, commit.sleeping(box, LAYERS) as container:
        commit.shell(box, container, "echo new >/new; rm /last; rm -r /etc/opaque; mkdir /etc/opaque; ln /new /linked")
        digest = _commit(
            box, container, _NEW, "-a", "A <a@b>", "-m", "why", "-c", "ENV A=1", "-c", 'CMD ["cat", "/new"]'
        )
        assert box.status(container) == "RUNNING"
        events.wait("/tasks/resumed", container)
    checked = {line.split()[0]: line for line in box.containerd.ctr("images", "check").checked().text.splitlines()}
    assert "complete (102/102)" in checked[_NEW]
    assert checked[_NEW].split()[-1] == "true"
    config = _config(box, digest)
    assert config["author"] == "A <a@b>"
    settings = config["config"]
    assert isinstance(settings, dict)
    assert settings["Cmd"] == ["cat", "/new"]
    assert settings["Env"] == ["PATH=/bin", "A=1"]
    history = config["history"]
    assert isinstance(history, list)
    assert history[-1]["comment"] == "why"
    assert history[-1]["created_by"] == "sleep 1000"
    exported = str(box.containerd.cell.directory / "tmp" / "exported.tar")
    box.containerd.ctr("images", "export", exported, _NEW).checked()
    with tarfile.open(exported) as archived:
        assert f"blobs/{digest.replace(':', '/')}" in archived.getnames()
    box.containerd.remove_image(_NEW)
    box.containerd.ctr("images", "import", exported).checked()
    os.unlink(exported)
    assert box.run("sh", "-c", "cat /new /linked; ls /last; ls /etc/opaque; echo $A", image=_NEW).text.split() == [
        *("new", "new", "1")
    ]
    assert box.run("cat", "/layers/99", image=_NEW).checked().text == "99"
    box.containerd.remove_image(_NEW)
    box.containerd.remove_image(LAYERS)


def test_what_was_committed_is_kept_and_the_rest_collected(runc: Box) -> None:
    """With the image go its blobs and its snapshot; until then collection leaves them."""
    before = _stores(runc)
    with commit.sleeping(runc, BUSYBOX) as container:
        commit.shell(runc, container, "echo x >/x")
        _commit(runc, container, _NEW)
    runc.containerd.import_image(LAYERS)
    runc.containerd.remove_image(LAYERS)  # collects
    assert runc.run("cat", "/x", image=_NEW).checked().text == "x"
    runc.containerd.remove_image(_NEW)
    _assert_nothing_new(runc, before)


@pytest.mark.on("2")
def test_a_second_commit_moves_the_name(vm: Box) -> None:
    """And upon the first image, by its name, a third layer."""
    with commit.sleeping(vm, BUSYBOX) as container:
        commit.shell(vm, container, "echo 1 >/x")
        first = _commit(vm, container, _NEW)
        assert _commit(vm, container, "--uncompressed", _NEW) != first
        commit.shell(vm, container, "echo 2 >/x")
        second = _commit(vm, container, _NEW)
        assert second != first
    with commit.sleeping(vm, _NEW) as container:
        assert commit.shell(vm, container, "cat /x") == "2\n"
        commit.shell(vm, container, "echo 3 >>/x")
        _commit(vm, container, "localhost/qemubox/third:1")
        # Its own image's name means another image from now on.
        _commit(vm, container, _NEW)
        said = _refused(vm, container, "localhost/qemubox/fourth:1")
        assert "is not what container" in said
    for name in (_NEW, "localhost/qemubox/third:1"):
        assert vm.run("cat", "/x", image=name).checked().text.split() == ["2", "3"]
        vm.containerd.remove_image(name)


def test_a_paused_container_stays_paused_and_a_stopped_one_stopped(box: Box) -> None:
    with commit.sleeping(box, BUSYBOX) as container:
        commit.shell(box, container, "echo x >/x")
        if box.is_vm:
            assert "--no-pause" in _refused(box, container, _NEW, "--no-pause")
            assert box.qemubox.command("commit", "nothing", _NEW).stderr.startswith("qemubox: container nothing: ")
        else:
            _commit(box, container, _NEW, "--no-pause")
        box.containerd.ctr("tasks", "pause", container).checked()
        _commit(box, container, _NEW)
        assert box.status(container) == "PAUSED"
        box.containerd.ctr("tasks", "resume", container).checked()
        commit.shell(box, container, "echo y >/x")
        box.containerd.ctr("containers", "label", container, f"nerdctl/name=name-of-{container}").checked()
        _commit(box, f"name-of-{container}", "localhost/qemubox/stopped:1")
        commit.end(box, container)
        _commit(box, container, "localhost/qemubox/stopped:1")
    assert box.run("cat", "/x", image=_NEW).checked().text == "x"
    assert box.run("cat", "/x", image="localhost/qemubox/stopped:1").checked().text == "y"
    for name in (_NEW, "localhost/qemubox/stopped:1"):
        box.containerd.remove_image(name)


@pytest.mark.release
@pytest.mark.on("2")
def test_an_interrupted_commit_resumes_and_leaves_nothing(vm: Box) -> None:
    """At whatever moment: here while a large layer is read."""
    with commit.sleeping(vm, BUSYBOX) as container:
        commit.shell(vm, container, "dd if=/dev/urandom of=/x bs=1M count=100 2>/dev/null")
        before = _stores(vm)
        for number in (signal.SIGINT, signal.SIGTERM):
            with _committing(vm, container) as process:
                process.send_signal(number)
                said, error = process.communicate(timeout=60)
            assert process.returncode == 128 + number, (said, error)
            assert said == ""
            _assert_one_line(error)
            assert number.name in error
            assert vm.status(container) == "RUNNING"
            _assert_nothing_new(vm, before)


@contextmanager
def _committing(box: Box, container: str) -> Iterator["subprocess.Popen[str]"]:
    """A commit that is just writing a large layer."""
    with subprocess.Popen(
        commit.command(box, container, _NEW),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=commit.environment(box),
        cwd="/",
        text=True,
    ) as process:
        eventually(lambda: "qemubox-commit" in box.containerd.ctr("content", "active").text, "a blob is written", 60)
        yield process


@pytest.mark.release
@pytest.mark.on("1.6")
def test_a_containerd_that_is_killed_meanwhile(vm: Box) -> None:
    """The commit fails, and the container goes on as soon as containerd is back; nobody else commits it meanwhile."""
    with commit.sleeping(vm, BUSYBOX) as container:
        commit.shell(vm, container, "dd if=/dev/urandom of=/x bs=1M count=100 2>/dev/null")
        before = _stores(vm)
        with _committing(vm, container) as process:
            second = commit.commit(vm, container, _NEW)
            assert "is being committed already" in second.stderr
            assert process.poll() is None, "too small a layer to see both"
            vm.containerd.stop(signal.SIGKILL)
            vm.containerd.start()
            said, error = process.communicate(timeout=90)
        assert process.returncode == 1
        assert said == ""
        _assert_one_line(error)
        assert vm.status(container) == "RUNNING"
        _assert_nothing_new(vm, before)


def test_a_full_disk(runc: Box) -> None:
    """There is no room for the layer's blob."""
    ingest = runc.containerd.cell.directory / "root/io.containerd.content.v1.content/ingest"
    with commit.sleeping(runc, BUSYBOX) as container:
        commit.shell(runc, container, "dd if=/dev/urandom of=/x bs=1M count=9 2>/dev/null")
        mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "full", str(ingest)]
        subprocess.run(runc.containerd.cell.inside(mount), check=True, timeout=30)
        try:
            assert "no space left on device" in _refused(runc, container, _NEW)
        finally:
            subprocess.run(runc.containerd.cell.inside(["umount", str(ingest)]), check=True, timeout=30)
        assert runc.status(container) == "RUNNING"
        _commit(runc, container, _NEW)
    runc.containerd.remove_image(_NEW)


def test_bad_input_is_refused_with_one_line(runc: Box) -> None:
    assert "container nothing" in _refused(runc, "nothing", _NEW)
    assert "Upper" in _refused(runc, "nothing", "Upper:1")
    with commit.sleeping(runc, BUSYBOX) as container:
        assert "RUN x" in _refused(runc, container, _NEW, "-c", "RUN x")
        assert "a digest" in _refused(runc, container, f"x@sha256:{'0' * 64}")
        assert "not-there" in _refused(runc, container, _NEW, "--address", "/run/not-there")
        assert "container" in _refused(runc, container, _NEW, "--namespace", "another")


def test_an_image_that_is_not_whole_is_refused(runc: Box) -> None:
    """A layer's blob that is not there would be missing in the new image, too."""
    tar = str(archive(DISTRO, runc.containerd.archives))
    runc.containerd.ctr("images", "import", tar).checked()
    with commit.sleeping(runc, DISTRO.image) as container:
        listed = runc.containerd.ctr("images", "ls").checked().text
        digest = next(line.split()[2] for line in listed.splitlines() if line.startswith(DISTRO.image))
        manifest = json.loads(runc.containerd.ctr("content", "get", digest).checked().stdout)
        layer = manifest["layers"][-1]["digest"]
        runc.containerd.ctr("content", "rm", layer).checked()
        said = _refused(runc, container, _NEW)
        assert layer in said
        assert "1 of its 3 layers" in said
        runc.containerd.remove_image(DISTRO.image)
        assert DISTRO.image in _refused(runc, container, _NEW)


@pytest.mark.on("2")
def test_a_read_only_root_gives_the_same_tree(vm: Box) -> None:
    """As docker commit and nerdctl commit have it: an image with one more layer, in which nothing is."""
    with commit.sleeping(vm, BUSYBOX, "--read-only") as container:
        _commit(vm, container, _NEW)
    assert vm.run("sh", "-c", "echo /*", image=_NEW).checked().text == vm.run("sh", "-c", "echo /*").checked().text
    vm.containerd.remove_image(_NEW)


def test_a_root_directory_is_no_snapshot(runc: Box) -> None:
    root = runc.containerd.cell.directory / "rootfs"
    root.mkdir()
    container = runc.new_id()
    runc.containerd.ctr("containers", "create", "--rootfs", str(root), container, "sleep", "1").checked()
    assert "no snapshot" in _refused(runc, container, _NEW)
    runc.remove(container).checked()
    root.rmdir()


@pytest.mark.release
@pytest.mark.on("2")
def test_a_native_snapshot_is_compared_by_containerd(vm: Box) -> None:
    """A whole directory, of which the changes are not known by themselves."""
    with commit.sleeping(vm, BUSYBOX, "--snapshotter", "native") as container:
        commit.shell(vm, container, "echo x >/x; rm /etc/group")
        _commit(vm, container, _NEW)
    assert vm.run("sh", "-c", "cat /x; ls /etc", image=_NEW).checked().text.split() == ["x", "passwd"]
    vm.containerd.remove_image(_NEW)


@pytest.mark.release
@pytest.mark.parametrize("snapshotter", ["overlayfs", "erofs"])
@pytest.mark.on("2")
def test_what_a_lost_machine_had_is_not_committed_before_it_is_back(vm: Box, snapshotter: str) -> None:
    """The snapshot's directory is older than what the container wrote."""
    vm.containerd.import_image(BUSYBOX, snapshotter)
    with commit.sleeping(vm, BUSYBOX, "--snapshotter", snapshotter) as container:
        commit.shell(vm, container, "echo x >/x; sync")
        (qemu,) = vm.processes("qemu-system-x86_64")
        qemu.kill()
        vm.wait_stopped(container)
        assert "has not come back" in _refused(vm, container, _NEW)
        vm.delete_task(container)
        assert "start it again" in _refused(vm, container, _NEW)
        vm.containerd.ctr("tasks", "start", "-d", container).checked()
        assert commit.shell(vm, container, "cat /x") == "x\n"
        _commit(vm, container, _NEW)
    assert vm.run("cat", "/x", image=_NEW).checked().text == "x"
    vm.containerd.remove_image(_NEW)


@pytest.mark.on("2")
def test_what_only_another_runtime_sees_is_refused(vm: Box) -> None:
    """The erofs snapshotter in block mode with runc: an empty layer would be a lie."""
    vm.containerd.import_image(BUSYBOX, "erofs")
    container = vm.new_id()
    options = ("--snapshotter", "erofs", "--runtime", RUNTIMES["runc"])
    vm.containerd.ctr("containers", "create", *options, BUSYBOX, container, "sleep", "1").checked()
    assert "rwlayer.img" in _refused(vm, container, _NEW)
    vm.remove(container).checked()
