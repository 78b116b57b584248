"""The way to the guest: the kernel's vsock, as the shim would take it, or what takes its place."""

from typing import Final

from shim.check.host import Host
from shim.check.line import Report
from shim.check.module import Module, module
from shim.errors import QemuboxError
from shim.vm.vsock import KERNEL_DEVICE, LinkMode, choose_mode
from shim.vm.vsock_kernel import KernelVsock

_PREPARE_S: Final = 5.0
_CLOSE_S: Final = 5.0


async def look(host: Host, report: Report) -> None:
    """See the module."""
    wanted = host.config.vsock.mode
    match choose_mode(wanted):
        case LinkMode.KERNEL:
            await _kernel(host, report)
        case LinkMode.USER:
            await _user(host, report)
        case LinkMode.SERIAL if wanted == "serial":
            report.ok('vsock.mode = "serial"', "QEMU's own ports: 62 streams at a time")
        case LinkMode.SERIAL:
            report.warning(
                KERNEL_DEVICE, "cannot be opened: QEMU's own ports are taken, with 62 streams at a time", _load(host)
            )


def _load(host: Host) -> str:
    if module(host, "vhost_vsock") is Module.MISSING:
        return 'use a kernel with CONFIG_VHOST_VSOCK, or set vsock.mode = "serial"'
    return "modprobe vhost_vsock"


async def _kernel(host: Host, report: Report) -> None:
    """Take a CID and listen, and give both back: all of it is a descriptor's."""
    backend = KernelVsock()
    try:
        await backend.prepare(_PREPARE_S)
    except QemuboxError as error:
        report.failure(KERNEL_DEVICE, error.message, _load(host))
    else:
        report.ok(KERNEL_DEVICE, "a CID can be had, and its port listened on")
    finally:
        await backend.close(_CLOSE_S)


async def _user(host: Host, report: Report) -> None:
    name = host.config.vsock.daemon
    program = host.which(name)
    if program is None:
        mend = 'run install.sh, which brings it, or set vsock.mode = "auto"'
        report.failure(f"vsock.daemon = {name!r}", "no such program", mend)
        return
    said = await host.run([program, "--version"])
    if said.status != 0:
        report.failure(program, f"--version fails: {said.last}", "look at vsock.daemon")
    else:
        report.ok(program, f"{said.last}; each machine has one beside it, and no memory in common with its template")
