"""The warm parent in a cell: `qemubox service`, started and ended as systemd would."""

import signal
import socket
from pathlib import Path
from typing import Final

import psutil

from harness.cell import Cell
from harness.deadline import eventually
from harness.qemubox import COMMAND, Qemubox

_DEADLINE_S: Final = 30.0


class Service:
    """Not running until `start`; its lines go to `log`."""

    def __init__(self, cell: Cell, qemubox: Qemubox, log: Path) -> None:
        self.pid = 0
        self._cell = cell
        self._qemubox = qemubox
        self._log = log

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self.pid != 0 and any(process.pid == self.pid for process in self._cell.processes())

    def start(self) -> None:
        """Start it, and wait until it says that it serves (sd_notify(3))."""
        address = self._cell.directory / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.bind(str(address))
            notified.settimeout(_DEADLINE_S)
            environment = {"PATH": "/usr/bin:/bin", "NOTIFY_SOCKET": str(address), **self._qemubox.environment}
            self.pid = self._cell.start([str(self._qemubox.bin / COMMAND), "service"], environment, self._log)
            try:
                assert notified.recv(100) == b"READY=1"
            finally:
                address.unlink()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it by the signal `number`, and wait until it is gone; shims stay."""
        process = psutil.Process(self.pid)
        process.send_signal(number)
        eventually(lambda: not self.running, f"the service {self.pid} ends", _DEADLINE_S)
