"""The ways between shim and guest, end to end, and whose memory a clone has in each.

Every other test runs with what `vsock.mode = "auto"` means on this machine.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.box import Box

_MODES = ("serial", "user")
_MIB = 1 << 20


@pytest.fixture(params=_MODES)
def mode(request: pytest.FixtureRequest, vm: Box) -> Iterator[str]:
    """A way, with templates of its own."""
    directory = vm.qemubox.cache.with_name(f"cache-{request.param}")
    with vm.qemubox.changed({"vsock": {"mode": request.param}, "runtime": {"cache_dir": str(directory)}}):
        built = vm.qemubox.command("template", "build")
        assert built.returncode == 0, built.stderr
        yield request.param
        assert vm.qemubox.command("template", "rm", "--all").returncode == 0
    # The service has been told to look, and found the others: it is told again, by a command that has nothing to do.
    assert vm.qemubox.command("template", "build").returncode == 0


@pytest.mark.on("2")
def test_output_and_input_are_whole(vm: Box, mode: str) -> None:
    data = bytes(range(256)) * (4 * _MIB // 256)
    assert vm.run("sha256sum", stdin=data).checked().text.split()[0] == hashlib.sha256(data).hexdigest()
    found = vm.run("sh", "-c", "head -c 4194304 /dev/zero; head -c 1048576 /dev/zero >&2").checked()
    assert (len(found.stdout), len(found.stderr)) == (4 * _MIB, _MIB)


@pytest.mark.on("2")
def test_a_clone_has_its_template_s_memory_where_nobody_else_maps_it(vm: Box, mode: str) -> None:
    container = vm.start_trapping(0)
    try:
        found = vm.inspect(container)
        assert (found["link"], found["memory_shared"]) == (mode, mode == "user")
        assert found["template"]
        assert found["memory"] in (("copied",) if mode == "user" else ("private", "copied"))
        qemu = found["qemu"]
        assert isinstance(qemu, list)
        (backend,) = [word for word in qemu if "id=base" in word]
        assert backend.endswith("share=on" if mode == "user" else "share=off")
        # The vsock daemon is there for one of them only.
        assert bool(vm.processes("vhost-device-vsock", "--vm")) == (mode == "user")
    finally:
        vm.kill(container, "KILL").checked()
        vm.wait_stopped(container)
        vm.delete_task(container)
        vm.remove(container).checked()


@pytest.mark.on("2")
def test_clones_map_one_sealed_file_copy_on_write(vm: Box) -> None:
    """What the service keeps: the same pages for all, which none of them can write to."""
    containers = [vm.start_trapping(0) for _ in range(2)]
    try:
        mapped = set()
        for container in containers:
            found = vm.inspect(container)
            assert found["memory"] == "private"
            maps = Path(f"/proc/{found['qemu_pid']}/maps").read_text().splitlines()
            (line,) = [line for line in maps if "/memfd:qemubox-memory" in line]
            _addresses, rights, _offset, device, inode, *_ = line.split()
            assert rights == "rw-p"
            mapped.add((device, inode))
        assert len(mapped) == 1
    finally:
        for container in containers:
            vm.kill(container, "KILL").checked()
            vm.wait_stopped(container)
            vm.delete_task(container)
            vm.remove(container).checked()
