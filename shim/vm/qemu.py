"""QEMU's process, started with everything that it inherits: its sockets, and the file that is its memory."""

import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from shim.journal import Journal
from shim.vm.console import Console
from shim.vm.machine import Descriptors, Machine
from shim.vm.ports import Ports
from shim.vm.process import Credentials, Process, spawn


@dataclass(frozen=True, slots=True)
class Qemu:
    """A QEMU that has just been started: the process, and our ends of its sockets. `ports` if the machine has some."""

    process: Process
    qmp: socket.socket
    console: Console
    ports: Ports | None


def start(
    machine: Machine,
    *,
    name: str,
    console_path: Path,
    console_kib: int,
    credentials: Credentials,
    journal: Journal,
    memory_fd: int,
    gdb_fd: int,
    restored: bool,
) -> Qemu:
    """Start the program; the parameters are those of `VirtualMachine.launch`. Raises what `spawn` raises.

    After an error nothing is open. QEMU's own ends are closed here, so that its exit is the end of every stream.
    """
    with ExitStack() as ours, ExitStack() as theirs:
        qmp, qmp_child = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.callback(qmp.close)
        theirs.callback(qmp_child.close)
        console = Console(console_path, console_kib)
        ours.callback(console.close)
        theirs.callback(console.release_child)
        ports = Ports() if machine.ports else None
        if ports is not None:
            ours.callback(ports.close)
            theirs.callback(ports.release_children)
        fds = Descriptors(
            qmp=qmp_child.fileno(),
            console=console.child.fileno(),
            ports=tuple(child.fileno() for child in ports.children) if ports else (),
            memory=memory_fd,
            gdb=gdb_fd,
        )
        process = spawn(
            machine.args(name=name, fds=fds, restored=restored),
            name="QEMU",
            marker=name,
            credentials=credentials,
            journal=journal,
            pass_fds=fds.all,
        )
        ours.pop_all()
    return Qemu(process, qmp, console, ports)
