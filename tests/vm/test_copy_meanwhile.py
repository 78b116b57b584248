"""`qemubox cp` and what becomes of the container, of the command, of a disk meanwhile; and containerd's own way."""

import asyncio
import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from api import transfer_types_pb2 as types
from harness.box import Box
from harness.copying import archive, begin, container, copied, copy, refused, sh
from harness.copying import place as place
from harness.deadline import eventually
from harness.transfer import TAR, opened, received, sent, transfer
from ttrpc import Client

pytestmark = pytest.mark.timeout(200)

_MIB = 1 << 20
_DEADLINE_S = 60.0


def test_a_paused_container_is_read_and_not_written_to(vm: Box, place: Path) -> None:
    with container(vm, "echo paused >/f; sleep 1000") as c:
        eventually(lambda: copy(vm, f"{c}:/f", "-").returncode == 0, "it is ready", _DEADLINE_S)
        writing = begin(vm, "-", f"{c}:/root", stdin=subprocess.PIPE)
        assert writing.stdin is not None
        data = archive("big", 4 * _MIB)
        writing.stdin.write(data[: 2 * _MIB])
        writing.stdin.flush()
        eventually(lambda: sh(vm, c, "ls /root").strip() == "big", "it is being written", _DEADLINE_S)
        vm.containerd.ctr("tasks", "pause", c).checked()
        copied(vm, f"{c}:/f", str(place))
        assert (place / "f").read_text() == "paused\n"
        assert "is paused, and nothing can be written" in refused(vm, str(place / "f"), f"{c}:/g")
        vm.containerd.ctr("tasks", "resume", c).checked()
        # What the pause has caught goes on.
        out, error = writing.communicate(data[2 * _MIB :], _DEADLINE_S)
        assert (writing.returncode, out, error) == (0, b"", b"")
        assert sh(vm, c, "stat -c %s /root/big; ls /g 2>&1 | wc -l").split() == [str(4 * _MIB), "1"]


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


@pytest.mark.release
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
        writing.stdin.write(archive("half", 4 * _MIB)[: 3 * _MIB])
        writing.stdin.flush()
        eventually(lambda: sh(vm, c, "ls /root").strip() == "half", "it is being written", _DEADLINE_S)
        for process in (reading, writing):
            process.send_signal(number)
            assert process.wait(_DEADLINE_S) == (130 if number == signal.SIGINT else -number)
            process.communicate()
        eventually(lambda: shim.num_fds() <= before, "the shim has let go of it", _DEADLINE_S)
        eventually(lambda: sh(vm, c, "ls /root") == "", "the guest has, too", _DEADLINE_S)
        copied(vm, f"{c}:/ready", str(place))


@pytest.mark.release
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


@pytest.mark.release
@pytest.mark.on("2")
def test_a_full_disk_is_said_on_either_side(vm: Box, place: Path) -> None:
    small = place / "small"
    small.mkdir()
    cell = vm.containerd.cell
    subprocess.run(cell.inside(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]), check=True)
    try:
        options = ("--mount", "type=tmpfs,src=tmpfs,dst=/small,options=rw:size=1m")
        with container(vm, "head -c 3m /dev/zero >/big; touch /ready; sleep 1000", *options) as c:
            eventually(lambda: copy(vm, f"{c}:/ready", "-").returncode == 0, "it is ready", _DEADLINE_S)
            (place / "big").write_bytes(bytes(3 * _MIB))
            assert "No space left on device" in refused(vm, str(place / "big"), f"{c}:/small/big")
            assert sh(vm, c, "ls /small") == ""
            assert "No space left on device" in refused(vm, f"{c}:/big", str(small))
            assert [*cell.path(str(small)).iterdir()] == []
    finally:
        subprocess.run(cell.inside(["umount", str(small)]), check=True)


def test_containerds_transfer_service(vm: Box) -> None:
    """On the shim's socket, asked as containerd's client asks; the directory is made."""
    data = archive("f", 3 * _MIB)
    with container(vm) as c:
        back = asyncio.run(_there_and_back(vm, c, data))
        assert "owner=7" not in sh(vm, c, "stat -c owner=%u /new/dir/f")
    with tarfile.open(fileobj=io.BytesIO(data)) as there, tarfile.open(fileobj=io.BytesIO(back)) as here:
        assert here.getnames() == ["dir", "dir/f"]
        contents = [tar.extractfile(name) for tar, name in ((there, "f"), (here, "dir/f"))]
        assert contents[0] is not None
        assert contents[1] is not None
        assert contents[0].read() == contents[1].read()


async def _there_and_back(vm: Box, name: str, data: bytes) -> bytes:
    (known,) = vm.containerd.cell.path("/run/qemubox/vm").glob("*/address.json")
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    path = str(vm.containerd.cell.path(json.loads(known.read_text())["socket"]))
    await asyncio.get_running_loop().sock_connect(sock, path)
    client = Client(sock)
    place = types.ContainerPath(container_id=name, path="/new/dir")
    async with opened(client, "in") as channel:
        sending = asyncio.create_task(sent(channel, data))
        await transfer(client, types.ReadStream(stream="in", media_type=TAR), place)
        await sending
    async with opened(client, "out") as channel:
        receiving = asyncio.create_task(received(channel))
        await transfer(client, place, types.WriteStream(stream="out", media_type=TAR))
        back = await receiving
    await client.close()
    return back
