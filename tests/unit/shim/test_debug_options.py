"""[debug]: off by default, loud when on, and no more of a way in than was asked for."""

import os
import socket
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from api.link import GUEST_CONSOLE
from shim.config import Config, DebugConfig, RuntimeConfig, VmConfig, VsockConfig
from shim.errors import HostError
from shim.host import bounds
from shim.hypervisor import Hypervisor, choose
from shim.identity import Identity
from shim.journal import Journal
from shim.log import Logger
from shim.prelaunch import GDB_SOCKET, Prelaunch
from shim.vm import offered
from shim.vm.machine import Machine


class _Log:
    """Keeps warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, event: str, **_facts: object) -> None:
        self.warnings.append(event)


def _config(**options: bool) -> Config:
    return Config(
        runtime=RuntimeConfig(user="root"),
        vm=VmConfig(accel="tcg", qemu="true", kernel_args="quiet -- init"),
        vsock=VsockConfig(mode="serial"),
        debug=DebugConfig(**options),
    )


async def _machine(config: Config, directory: Path, log: _Log) -> Machine:
    made = await choose(config, directory, bounds(config), Journal(directory), cast("Logger", log))
    return made.machine


async def test_a_prompt_is_on_the_console_only_where_it_is_asked_for(tmp_path: Path) -> None:
    quiet, loud = _Log(), _Log()
    plain = await _machine(_config(), tmp_path, quiet)
    with_prompt = await _machine(_config(guest_console=True), tmp_path, loud)
    assert GUEST_CONSOLE not in plain.kernel_command_line
    # Before the administrator's words: those may end in `--`.
    assert with_prompt.kernel_args == f"{GUEST_CONSOLE} quiet -- init"
    assert [each for each in quiet.warnings if "debug." in each] == []
    assert any(each.startswith("debug.guest_console") for each in loud.warnings)


async def test_a_machine_with_a_prompt_is_no_clone_of_an_ordinary_template(tmp_path: Path) -> None:
    """Nor the other way round."""
    for name in ("kernel", "image"):
        (tmp_path / name).touch()
    vm = VmConfig(accel="tcg", qemu="true", kernel=str(tmp_path / "kernel"), image=str(tmp_path / "image"))
    machines = [
        await _machine(_config(guest_console=wanted)._replace(vm=vm), tmp_path, _Log()) for wanted in (False, True)
    ]
    assert machines[0].fingerprint() != machines[1].fingerprint()


class _Launch:
    """What Prelaunch starts QEMU with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path, config: Config) -> None:
        self.directory = directory
        self.log = _Log()
        self.offered: list[Path] = []
        self.gdb: socket.socket | None = None
        self.refuses = False
        self._prelaunch = Prelaunch(
            config,
            Identity("/a", "ns", "c"),
            directory,
            bounds=bounds(config),
            journal=Journal(directory),
            log=cast("Logger", self.log),
        )
        monkeypatch.setattr("shim.prelaunch.VirtualMachine.launch", self._launch)

    async def start(self) -> None:
        hypervisor = cast("Hypervisor", SimpleNamespace(machine=None, credentials=None))
        await self._prelaunch._start(hypervisor, -1, restored=True)

    async def _launch(self, _machine: object, *, gdb_fd: int, **_others: object) -> object:
        if gdb_fd >= 0:
            self.gdb = socket.socket(fileno=os.dup(gdb_fd))
        return SimpleNamespace(console=SimpleNamespace(offer=self._offer))

    def _offer(self, path: Path) -> None:
        if self.refuses:
            raise OSError("AF_UNIX path too long")
        self.offered.append(path)


async def test_nobody_waits_for_a_debugger_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launch = _Launch(monkeypatch, tmp_path, _config())
    await launch.start()
    assert launch.gdb is None
    assert not (tmp_path / GDB_SOCKET).exists()
    assert launch.offered == [tmp_path / offered.FILE_NAME]
    assert launch.log.warnings == []


async def test_qemu_gets_a_socket_that_only_root_may_connect_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = _Launch(monkeypatch, tmp_path, _config(gdb=True))
    await launch.start()
    assert launch.gdb is not None
    with launch.gdb:
        assert launch.gdb.getsockname() == str(tmp_path / GDB_SOCKET)
        assert launch.gdb.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    assert stat.S_IMODE((tmp_path / GDB_SOCKET).stat().st_mode) == 0o600
    assert launch.log.warnings == ["debug.gdb: whoever connects stops the machine"]
    with socket.socket(socket.AF_UNIX) as late, pytest.raises(ConnectionRefusedError):
        late.connect(str(tmp_path / GDB_SOCKET))  # ours is closed: QEMU's alone keeps it


async def test_a_socket_that_cannot_be_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the debugger was asked for; that of the console was not, and keeps no container from starting."""
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    with pytest.raises(HostError, match=r"debug\.gdb: cannot listen at .*: AF_UNIX path too long"):
        await _Launch(monkeypatch, deep, _config(gdb=True)).start()
    launch = _Launch(monkeypatch, tmp_path, _config())
    launch.refuses = True
    await launch.start()
    assert launch.log.warnings == ["qemubox console will not find the guest"]
