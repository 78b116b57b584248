"""Volumes of a host that is not as it should be, and of a guest that wants more than it was given.

What has nothing to do with containerd is tried on one alone: under TCG each start takes its second.
"""

import subprocess
from pathlib import Path

import psutil
import pytest

from harness.box import Box
from harness.deadline import eventually
from harness.messages import assert_one_clear_line
from harness.qemubox import Sections
from harness.volume import end, execute, mounted
from harness.volume import volume as volume

pytestmark = pytest.mark.timeout(150)

_GONE_DEADLINE_S = 20.0


def _daemons(box: Box) -> list[psutil.Process]:
    """The one that waits and the one that serves, if there are any."""
    return box.processes("/virtiofsd", "=/sys")


def _lose(box: Box, container: str, victim: psutil.Process) -> int:
    """Box.lose, with nothing left of the volumes."""
    status = box.lose(container, victim, _GONE_DEADLINE_S)
    eventually(lambda: not _daemons(box), "virtiofsd is gone", _GONE_DEADLINE_S)
    return status


@pytest.mark.on("2")
def test_a_container_without_volumes_has_no_daemon(vm: Box) -> None:
    container = vm.start("sleep", "1000")
    assert _daemons(vm) == []
    assert vm.inspect(container)["memory_shared"] is False
    end(vm, container)


def test_the_daemon_sees_the_volumes_and_nothing_else(vm: Box, volume: Path) -> None:
    """Nor does the host see what is mounted for it."""
    (volume / "file").write_text("")
    before = Path("/proc/self/mountinfo").read_text()
    options = ("--null-io", *mounted(volume, "/rw"), *mounted(volume / "file", "/ro-file", "rw"))
    container = vm.start("sleep", "1000", options=options)
    parent, serving = _daemons(vm)
    assert serving.ppid() == parent.pid
    for process in (parent, serving):
        mounts = [line.split(" ") for line in Path(f"/proc/{process.pid}/mountinfo").read_text().splitlines()]
        assert [mount[4] for mount in mounts] == ["/", "/0", "/1"]
        assert all({"nosuid", "nodev", "noexec"} <= {*mount[5].split(",")} for mount in mounts)
        assert "ro" in mounts[0][5].split(",")
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
        # chown, dac_override, fowner, fsetid, setgid, setuid, mknod, setfcap; the one that waits needs none.
        assert int(status["CapEff"], 16) & ~0x880000DB == 0
        assert int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    for namespace in ("mnt", "pid", "net", "ipc", "uts"):
        ours, theirs = Path(f"/proc/self/ns/{namespace}"), Path(f"/proc/{serving.pid}/ns/{namespace}")
        assert ours.readlink() != theirs.readlink(), namespace
    assert Path("/proc/self/mountinfo").read_text() == before
    end(vm, container)
    assert _daemons(vm) == []


@pytest.mark.keeps_image
def test_kill_of_the_shim(vm: Box, volume: Path) -> None:
    container = vm.start("sleep", "1000", options=("--null-io", *mounted(volume)))
    assert _lose(vm, container, vm.shim(container)) == 137


@pytest.mark.release
@pytest.mark.on("2")
@pytest.mark.keeps_image
@pytest.mark.parametrize("which", [0, 1])
def test_kill_of_the_daemon(vm: Box, volume: Path, which: int) -> None:
    """Without it what looks at a volume could not even be killed: the container is lost, and not stuck."""
    script = "while :; do echo > /v/file; sleep 0.1; done"
    container = vm.start("sh", "-c", script, options=("--null-io", *mounted(volume)))
    assert _lose(vm, container, _daemons(vm)[which]) == 137


@pytest.mark.on("2")
def test_there_is_no_daemon(vm: Box, volume: Path) -> None:
    """Who wants no volume is not bothered."""
    with vm.qemubox.changed({"volumes": {"daemon": "/nowhere/virtiofsd"}}):
        assert_one_clear_line(
            vm.run("true", options=mounted(volume)), "/nowhere/virtiofsd", "apt-get install virtiofsd"
        )
        vm.run("true").checked()
    with vm.qemubox.changed({"volumes": {"daemon": "/bin/true"}}):
        assert_one_clear_line(vm.run("true", options=mounted(volume)), "/bin/true --version says", "volumes.daemon")


def test_a_source_that_is_not_there(box: Box, volume: Path) -> None:
    done = box.run("true", options=mounted(volume / "nothing"))
    assert done.code != 0
    assert "nothing" in done.error
    assert "o such file or directory" in done.error


@pytest.mark.release
@pytest.mark.on("2")
def test_every_way_to_a_machine(vm: Box, volume: Path) -> None:
    """Without a template, and with a second device that another process serves."""
    (volume / "file").write_text("here")
    changes: tuple[Sections, ...] = ({"template": {"mode": "off"}}, {"vsock": {"mode": "user"}})
    for change in changes:
        with vm.qemubox.changed(change):
            assert vm.run("cat", "/v/file", options=mounted(volume)).text == "here"


@pytest.mark.on("2")
def test_root_in_the_guest_does_not_make_it_writable(vm: Box, volume: Path) -> None:
    """Whatever it mounts: the host refuses."""
    (volume / "ro").mkdir()
    (volume / "rw").mkdir()
    (volume / "ro" / "file").write_text("as it was")
    script = (
        "exec 2>&1; mount -o remount,rw,bind /ro && echo remounted; echo x > /ro/file; echo x > /ro/new;"
        " mkdir /all; mount -t virtiofs volumes /all && ls /all; echo x > /all/1/file; touch /all/new; rmdir /all/0;"
        " ls -A /all/.. | grep -c proc; echo mine > /all/0/file"
    )
    options = (*mounted(volume / "rw", "/rw"), *mounted(volume / "ro", "/ro", "ro"), "--cap-add", "CAP_SYS_ADMIN")
    done = vm.run("sh", "-c", script, options=options)
    assert done.text.splitlines() == [
        "remounted",
        *(f"sh: can't create /ro/{name}: Read-only file system" for name in ("file", "new")),
        *("0", "1", "sh: can't create /all/1/file: Read-only file system"),
        *("touch: /all/new: Read-only file system", "rmdir: '/all/0': Read-only file system"),
        "1",
    ]
    assert (volume / "rw" / "file").read_text() == "mine\n"
    assert (volume / "ro" / "file").read_text() == "as it was"
    assert [path.name for path in (volume / "ro").iterdir()] == ["file"]


@pytest.mark.release
def test_a_full_disk_below_a_volume(box: Box, volume: Path) -> None:
    """ENOSPC in the container, and nothing else happens."""
    small = volume / "small"
    small.mkdir()
    mount = box.containerd.cell.inside(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)])
    subprocess.run(mount, check=True, timeout=20)
    try:
        script = (
            "dd if=/dev/zero of=/v/large bs=64k count=64 2>&1 | grep -o 'No space left on device'; rm /v/large;"
            " echo still here > /v/file; cat /v/file"
        )
        done = box.run("sh", "-c", script, options=mounted(small))
        assert done.text.splitlines() == ["No space left on device", "still here"]
    finally:
        subprocess.run(box.containerd.cell.inside(["umount", str(small)]), check=True, timeout=20)


@pytest.mark.release
@pytest.mark.on("2")
def test_several_file_systems(vm: Box, volume: Path) -> None:
    """Each is a device of its own, so that two files with one inode number are not taken for one."""
    options: list[str] = []
    for name in ("one", "two"):
        (volume / name).mkdir()
        mount = ["mount", "-t", "tmpfs", "tmpfs", str(volume / name)]
        subprocess.run(vm.containerd.cell.inside(mount), check=True, timeout=20)
        subprocess.run(vm.containerd.cell.inside(["touch", str(volume / name / "file")]), check=True, timeout=20)
        options += mounted(volume / name, f"/{name}")
    try:
        said = vm.run("stat", "-c", "%d %i", "/one/file", "/two/file", options=options).checked().text.splitlines()
        (one, first), (two, second) = (line.split() for line in said)
        assert first == second
        assert one != two
    finally:
        for name in ("one", "two"):
            subprocess.run(vm.containerd.cell.inside(["umount", str(volume / name)]), check=True, timeout=20)


@pytest.mark.release
@pytest.mark.on("2")
def test_kill_while_the_daemon_stands_still(vm: Box, volume: Path) -> None:
    """What does not wait for it is ended at once."""
    container = vm.start("sleep", "1000", options=("--null-io", *mounted(volume)))
    for process in _daemons(vm):
        process.suspend()
    vm.kill(container).checked()
    vm.wait_stopped(container)
    assert "non-zero exit code 137" in vm.delete_task(container).error
    vm.remove(container).checked()
    eventually(lambda: not _daemons(vm), "virtiofsd is gone", _GONE_DEADLINE_S)


def test_what_is_mounted_later_is_seen_by_a_volume_that_follows(box: Box, volume: Path) -> None:
    """With rslave, and with no other propagation."""
    inside = box.containerd.cell.inside
    for command in (["mount", "-t", "tmpfs", "tmpfs", str(volume)], ["mount", "--make-rshared", str(volume)]):
        subprocess.run(inside(command), check=True, timeout=20)
    try:
        subprocess.run(inside(["mkdir", str(volume / "sub")]), check=True, timeout=20)
        options = (*mounted(volume, "/follows", "rw:rslave"), *mounted(volume, "/not", "rw:rprivate"))
        container = box.start("sleep", "1000", options=("--null-io", *options))
        assert execute(box, container, "ls /follows/sub /not/sub").checked().text.split() == [
            "/follows/sub:",
            "/not/sub:",
        ]
        mount = ["mount", "-t", "tmpfs", "tmpfs", str(volume / "sub")]
        subprocess.run(inside(mount), check=True, timeout=20)
        subprocess.run(inside(["touch", str(volume / "sub" / "file")]), check=True, timeout=20)
        script = "while ! [ -e /follows/sub/file ]; do sleep 0.1; done; ls /not/sub; echo x > /follows/sub/mine"
        assert execute(box, container, script).checked().text == ""
        seen = subprocess.run(inside(["ls", str(volume / "sub")]), check=True, capture_output=True, timeout=20)
        assert seen.stdout.split() == [b"file", b"mine"]
        end(box, container)
    finally:
        subprocess.run(inside(["umount", "-R", str(volume)]), check=True, timeout=20)
