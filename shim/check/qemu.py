"""QEMU: whether it is there, new enough, and has every device that a machine of this configuration has."""

import re
from pathlib import Path
from typing import Final

from shim.check.host import Host, dotted, version
from shim.check.line import Report
from shim.vm.machine import NO_DESCRIPTORS, Accel, Machine
from shim.vm.vsock import LinkMode, choose_mode

OLDEST: Final = (7, 2)
# What is plugged in later (shim/vm/), beside what stands on the command line.
_PLUGGED: Final = ("virtio-net-pci", "virtio-blk-pci")
_OF_LINK: Final = {
    LinkMode.KERNEL: "vhost-vsock-pci",
    LinkMode.USER: "vhost-user-vsock-pci",
    LinkMode.SERIAL: "virtserialport",
}
_VOLUMES: Final = "vhost-user-fs-pci"


async def look(host: Host, report: Report) -> None:
    """See the module."""
    name = host.config.vm.qemu
    program = host.which(name)
    if program is None:
        report.failure(f"vm.qemu = {name!r}", "no such program", "apt-get install qemu-system-x86")
        return
    said = await host.run([program, "--version"])
    found = version(said.text, "QEMU emulator version")
    if said.status != 0 or found is None:
        report.failure(program, f"--version says {said.last!r}: no QEMU", "look at vm.qemu")
        return
    if found < OLDEST:
        report.failure(program, f"QEMU {dotted(found)} is older than {dotted(OLDEST)}", "install a newer QEMU")
        return
    report.ok(program, f"QEMU {dotted(found)}")
    await _devices(host, report, program)


def needed(host: Host, program: Path) -> set[str]:
    """The names of all devices, from the very command line that machines get. Pure."""
    link = choose_mode(host.config.vsock.mode)
    machine = Machine(
        qemu=program,
        kernel=Path(host.config.vm.kernel),
        image=Path(host.config.vm.image),
        accel=Accel.TCG,
        max_vcpus=1,
        max_memory_mib=2 * host.config.vm.base_memory_mib,
        base_memory_mib=host.config.vm.base_memory_mib,
        ports=link is LinkMode.SERIAL,
    )
    options = machine.options(name="check", fds=NO_DESCRIPTORS)
    on_command_line = {words[1].partition(",")[0] for words in options if words[0] == "-device"}
    return on_command_line | {*_PLUGGED, _OF_LINK[link]}


async def _devices(host: Host, report: Report, program: str) -> None:
    said = await host.run([program, "-machine", "none", "-device", "help"])
    there = set(re.findall(r'^name "([^"]+)"', said.text, re.MULTILINE))
    if said.status != 0 or not there:
        report.failure(program, f"-device help fails: {said.last}", "install QEMU anew")
        return
    missing = sorted(needed(host, Path(program)) - there)
    if missing:
        report.failure("devices", f"this QEMU has no {', '.join(missing)}", "install a QEMU that has all of x86_64")
        return
    if _VOLUMES not in there:
        report.warning(
            "devices", f"this QEMU has no {_VOLUMES}: containers with volumes are refused", "install another QEMU"
        )
    else:
        report.ok("devices", "all that a machine may have")
    machines = await host.run([program, "-machine", "help"])
    if not re.search(r"^q35\s", machines.text, re.MULTILINE):
        report.failure("devices", "this QEMU has no machine q35", "install a QEMU that has all of x86_64")
