"""Network namespaces: made as `ip netns add` makes them, and those given looked at before they are used. Needs root."""

import contextlib
import fcntl
import os
import socket
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from shim.errors import HostError, SpecError
from shim.network import netns
from tests.unit.shim.network.places import Place, is_mounted, unmount
from tests.unit.shim.observe import same_fds, until

_OWN = "/proc/self/ns/net"


def _identity(path: str | Path | int) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _namespaces_of_threads() -> set[str]:
    found = set()
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/self/task/{task}/ns/net"))
    return found


def test_a_new_one_is_mounted_and_has_its_loopback(inside: Place) -> None:
    assert _identity(inside.path) == _identity(inside.fd) != _identity(_OWN)
    (loopback,) = inside.json("address show dev lo")
    flags, addresses = loopback["flags"], loopback["addr_info"]
    assert isinstance(flags, list)
    assert isinstance(addresses, list)
    assert "UP" in flags
    assert {address["local"] for address in addresses} == {"127.0.0.1", "::1"}


def test_its_directory_is_a_shared_mount_once(parent: Path) -> None:
    """As `ip netns add` leaves it: else an unmount would not be seen elsewhere."""
    barrier = threading.Barrier(8)
    fds: list[int] = []

    def make(number: int) -> None:
        barrier.wait(20)
        fds.append(netns.make(parent / f"n{number}"))

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len({_identity(fd) for fd in fds}) == 8
    for fd in fds:
        os.close(fd)
    lines = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if line.split()[4] == str(parent)]
    assert len(lines) == 1
    assert "shared:" in lines[0]


def test_iproute2_takes_it_for_its_own(parent: Path) -> None:
    """`ip netns delete` does what our own removal does: the mount goes, then the file."""
    os.close(netns.make(parent / "one"))
    unmount(parent / "one")
    assert stat.S_ISREG((parent / "one").stat().st_mode)
    (parent / "one").unlink()
    os.close(netns.make(parent / "one"))


def test_nothing_of_ours_moves(parent: Path) -> None:
    """Neither this thread nor any other is in another namespace afterwards, and no descriptor is left open."""
    with same_fds():
        fd = netns.make(parent / "one")
        netns.within(fd, lambda: None)
        os.close(fd)
    # A thread that has been joined may still be about to end.
    until(lambda: _namespaces_of_threads() == {os.readlink(_OWN)}, "all threads are in the host's namespace")


def test_what_is_there_is_not_taken(parent: Path) -> None:
    (parent / "file").write_text("somebody's")
    with pytest.raises(HostError, match=r"/file cannot be made: File exists"):
        netns.make(parent / "file")
    assert (parent / "file").read_text() == "somebody's"


def test_one_that_fails_half_way_leaves_nothing(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mount is what may fail last."""
    monkeypatch.setattr(netns, "_OWN", "/proc/thread-self/ns/missing")
    with same_fds(), pytest.raises(HostError, match=r"/one cannot be made: No such file"):
        netns.make(parent / "one")
    assert list(parent.iterdir()) == []
    assert not is_mounted(parent / "one")


def test_a_locked_directory_has_a_deadline(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netns, "_LOCK_S", 0.05)
    fd = os.open(parent, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(HostError, match="another has its directory locked"):
        netns.make(parent / "one")
    os.close(fd)
    os.close(netns.make(parent / "one"))


def test_a_given_one_by_path_and_by_process(inside: Place) -> None:
    fd = netns.open_given(str(inside.path))
    assert _identity(fd) == _identity(inside.fd)
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.close(fd)
    command = ["/usr/bin/nsenter", f"--net={inside.path}", "/bin/sh", "-c", "echo; read line"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        fd = netns.open_given(f"/proc/{process.pid}/ns/net")
        assert _identity(fd) == _identity(inside.fd)
        os.close(fd)
        process.communicate(b"\n")
    with same_fds(), pytest.raises(SpecError, match=rf"/proc/{process.pid}/ns/net: No such file"):
        netns.open_given(f"/proc/{process.pid}/ns/net")


def test_the_hosts_is_refused(inside: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours, and that of process 1, which some systems keep from being looked at."""
    with same_fds(), pytest.raises(SpecError, match="/proc/self/ns/net: it is the host's") as refused:
        netns.open_given(_OWN)
    assert "one of its own" in refused.value.hint
    monkeypatch.setattr(netns, "_FIRST", str(inside.path))
    with same_fds(), pytest.raises(SpecError, match="/inside: it is the host's"):
        netns.open_given(str(inside.path))
    monkeypatch.setattr(netns, "_FIRST", "/proc/0/ns/net")
    os.close(netns.open_given(str(inside.path)))


def test_what_is_none_is_refused_and_not_touched(parent: Path, inside: Place) -> None:
    (parent / "file").write_text("")
    os.mkfifo(parent / "fifo")  # to open it would wait for a writer
    for path, reason in (
        (str(parent / "file"), "it is no network namespace"),
        (str(parent / "fifo"), "it is no network namespace"),
        (str(parent), "it is no network namespace"),
        ("/dev/null", "it is no network namespace"),
        ("/proc/self/ns/mnt", "it is a namespace of another kind"),
        (str(parent / "missing"), "No such file"),
        (f"{inside.path}/below", "Not a directory"),
    ):
        with same_fds(), pytest.raises(SpecError, match=reason) as refused:
            netns.open_given(path)
        assert path in str(refused.value)


def test_work_is_done_inside(inside: Place) -> None:
    assert netns.within(inside.fd, lambda: os.stat("/proc/thread-self/ns/net").st_ino) == inside.path.stat().st_ino
    # What is opened there stays of there.
    sock = netns.within(inside.fd, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with sock, pytest.raises(OSError, match="unreachable"):
        sock.connect(("192.0.2.1", 9))


def test_what_work_raises_is_raised(inside: Place) -> None:
    def fail() -> None:
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        netns.within(inside.fd, fail)
    with open("/dev/null") as file, pytest.raises(OSError, match="setns: Invalid argument"):
        netns.within(file.fileno(), fail)
