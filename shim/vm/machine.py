"""What a virtual machine is: an immutable value, and QEMU's argument list made from it.

Everything that two machines must share for one to be a clone of the other's template is
in `Machine`, and nothing else. What belongs to one container (vsock, disks, interfaces) is
plugged in later, over QMP, while the machine is still paused. What every machine needs is
there from the start, because a guest finds a device that is plugged into it by ACPI, in
50 ms under TCG, and has what its template had for nothing: the ports, the memory device,
which is told only how much of it the guest is to have, and some drives, which are empty
until a disk is put into them.

The machine is q35 with everything optional off: no firmware devices, no graphics, no
default devices. The kernel is an uncompressed ELF file, entered by PVH; a bzImage costs
1 s more under TCG. `-M microvm` boots no faster and has no hot-plug (docs/architecture.md).
"""

import enum
import hashlib
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from api.link import CONTROL_PORT, port_name, port_token
from shim.errors import ConfigError, HostError, MissingPartError

# What QEMU is denied, see qemu(1): nothing of it is needed once it runs, and its files and sockets are handed to it.
SANDBOX: Final = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

# Where everything that is hot-plugged goes: the slots of one conventional PCI bridge, hot-pluggable by ACPI.
# A pcie-root-port per slot works as well, and costs the guest 25 ms of its start each
# (TCG: 16 ports 0.4 s, this bridge 0.05 s; 2026-11), used or not. It must have a hot-plug controller (shpc, by
# default on), though ACPI does the work: only for such a bridge does the firmware keep room in the address space
# while nothing is plugged in, which is how a template boots.
SLOT_BUS: Final = "slots"
SLOTS: Final = 31
# virtio-serial: how many ports a machine may have at once, the one for control included. Each has two queues, and each
# queue takes 8 KiB of the guest's memory.
MAX_PORTS: Final = 64
# Those that are there from the start: standard input, output and error of the first container.
STREAM_PORTS: Final = 3
PORT_BUS: Final = "ports"
# What the ids of ports begin with; their numbers follow.
PORT: Final = "port-"
# Drives that are there, empty, from the start: for as many layers as get a disk of their own (rootfs/plan.py), and for
# one writable layer. They are read-only or not for ever; the guest tells them by their serial numbers, which are these.
LAYER_DRIVES: Final = tuple(f"layer{number}" for number in range(4))
WRITABLE_DRIVES: Final = ("writable0",)
MEMORY_DEVICE: Final = "memory"
# Where the drives begin on the root bus; the devices before them have their numbers below.
_FIRST_DRIVE: Final = 8
# No virtio 0.9 interface: it would take I/O ports, and Linux uses the 1.x one anyway.
MODERN: Final = "disable-legacy=on"

# vminitd's own words on the kernel command line come after these.
_KERNEL_ARGS: Final = (
    # Warnings and worse: under TCG each byte on the serial line costs time. A panic turns everything on by itself.
    "console=ttyS0 loglevel=4",
    # A panic ends the machine at once: reset (by triple fault), which -no-reboot turns into QEMU's exit.
    "panic=-1 reboot=t",
    # The root image is the first disk: the only one that is there before any hot-plug, on the lowest bus.
    "root=/dev/vda rootfstype=erofs ro init=/init",
    # No calibration against emulated timers: without these each vCPU that comes online costs 1 s under TCG.
    "no_timer_check lpj=5000000",
    # vCPUs are all there and are brought online by vminitd as the container needs them.
    "maxcpus=1",
    # Hot-added memory comes online by itself, a quarter of it for the kernel's own use: page tables and the
    # description of further memory need some, and the base is small (docs/decisions/0003).
    "memhp_default_state=online memory_hotplug.online_policy=auto-movable",
)
# TCG's TSC is the host's and goes on whatever happens, but Linux compares it with a timer that is late on a busy host,
# and then does without it: with one of 24 bits, which loses 4.7 s each time that it turns over unseen.
_TCG_KERNEL_ARGS: Final = ("tsc=reliable",)


class Accel(enum.StrEnum):
    """How the guest's instructions run. TCG is a way to run, not a security boundary."""

    KVM = "kvm"
    TCG = "tcg"

    @property
    def default_cpu_model(self) -> str:
        """The most that the accelerator can give; migratable, so that a template can be made of it."""
        return "host,migratable=on" if self is Accel.KVM else "max"


@dataclass(frozen=True, slots=True)
class Descriptors:
    """What QEMU inherits: connected stream sockets, and the file that is its memory.

    `ports` are the ends of control and of the first streams, for a machine with ports. Without `memory` (-1) it
    makes its memory itself. `gdb` is a socket that listens, for a debugger; -1: there is none.
    """

    qmp: int
    console: int
    ports: tuple[int, ...] = ()
    memory: int = -1
    gdb: int = -1

    @property
    def all(self) -> tuple[int, ...]:
        """Every number."""
        return (self.qmp, self.console, *self.ports, *(fd for fd in (self.memory, self.gdb) if fd >= 0))


# For a fingerprint, or to look at: as if they were there.
NO_DESCRIPTORS: Final = Descriptors(qmp=0, console=0, ports=(0,) * (1 + STREAM_PORTS))


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything of QEMU's command line that a template and its clones share.

    `max_memory_mib` is what base and further memory may come to together. With
    `shared_memory` other processes can map the guest's memory, as a vhost-user device
    must; without, it is QEMU's own, and a clone's is its template's until it is written
    to. That is not to be seen from inside: one template serves both. `ports`: it has
    virtio-serial ports to talk to the shim (ports.py). `tcg_cache_mib` bounds what TCG
    keeps of translated code. `cpu_model` empty means the accelerator's best. Raises
    ConfigError for values that no machine can have.
    """

    qemu: Path
    kernel: Path
    image: Path
    accel: Accel
    max_vcpus: int
    max_memory_mib: int
    base_memory_mib: int = 128
    shared_memory: bool = False
    ports: bool = False
    tcg_cache_mib: int = 256
    cpu_model: str = ""
    kernel_args: str = ""

    def __post_init__(self) -> None:
        if self.max_vcpus < 1:
            raise ConfigError(f"a machine of {self.max_vcpus} vCPUs: must be at least 1")
        if self.max_memory_mib < self.base_memory_mib:
            raise ConfigError(
                f"a machine of at most {self.max_memory_mib} MiB: less than its base of {self.base_memory_mib} MiB"
            )

    @property
    def room_mib(self) -> int:
        """How much memory the guest may be given on top of its base."""
        return self.max_memory_mib - self.base_memory_mib

    def options(self, *, name: str, fds: Descriptors, restored: bool = False) -> list[tuple[str, ...]]:
        """QEMU's options, each with its value.

        The machine starts paused, and ends instead of rebooting. With `restored` it stands
        empty until it is given the state of a template, which is of the same machine otherwise.
        """
        return [
            ("-name", f"guest={name}"),
            ("-nodefaults",),
            ("-no-user-config",),
            ("-no-reboot",),
            ("-S",),
            ("-display", "none"),
            ("-sandbox", SANDBOX),
            ("-machine", self._machine()),
            ("-accel", f"tcg,tb-size={self.tcg_cache_mib}" if self.accel is Accel.TCG else str(self.accel)),
            ("-cpu", self.cpu_model or self.accel.default_cpu_model),
            ("-smp", f"cpus={self.max_vcpus},sockets=1,cores={self.max_vcpus},threads=1"),
            ("-m", self._memory()),
            ("-object", self._memory_backend(fds.memory)),
            ("-kernel", str(self.kernel)),
            ("-append", self.kernel_command_line),
            ("-blockdev", f"driver=file,node-name=system,filename={_escape(self.image)},read-only=on,locking=off"),
            (
                "-device",
                f"virtio-blk-pci,id=system,drive=system,serial=system,num-queues=1,{MODERN},bus=pcie.0,addr=0x1",
            ),
            ("-device", f"virtio-rng-pci,id=rng,{MODERN},bus=pcie.0,addr=0x2"),
            ("-device", f"pci-bridge,id={SLOT_BUS},chassis_nr=1,bus=pcie.0,addr=0x3"),
            *_drives(),
            *self._memory_device(),
            *(self._port_options(fds.ports) if self.ports else ()),
            # Never inflated: it tells which pages the guest has freed, and the host has them back (decision 0012).
            ("-device", f"virtio-balloon-pci,id=balloon,free-page-reporting=on,{MODERN},bus=pcie.0,addr=0x6"),
            ("-device", "vmgenid,guid=auto"),
            ("-device", "pvpanic"),
            ("-chardev", f"socket,id=console,fd={fds.console}"),
            ("-serial", "chardev:console"),
            ("-chardev", f"socket,id=qmp,fd={fds.qmp}"),
            ("-mon", "chardev=qmp,mode=control"),
            *(_debugger(fds.gdb) if fds.gdb >= 0 else ()),
            *([("-incoming", "defer")] if restored else []),
        ]

    def args(self, *, name: str, fds: Descriptors, restored: bool = False) -> list[str]:
        """The whole argument list, QEMU's path first."""
        options = self.options(name=name, fds=fds, restored=restored)
        return [str(self.qemu), *(word for option in options for word in option)]

    def repeat_command(self) -> str:
        """A shell command that starts the same machine by hand, running, with its console on the terminal."""
        words = [str(self.qemu)]
        for option in replace(self, ports=False).options(name="by-hand", fds=NO_DESCRIPTORS):
            if option == ("-S",) or option[0] in ("-chardev", "-mon"):
                continue
            words += ("-serial", "stdio") if option[0] == "-serial" else option
        return shlex.join(words)

    @property
    def kernel_command_line(self) -> str:
        """The words the kernel is given, ours before the administrator's."""
        for_tcg = _TCG_KERNEL_ARGS if self.accel is Accel.TCG else ()
        return " ".join((*_KERNEL_ARGS, *for_tcg, *([self.kernel_args] if self.kernel_args else [])))

    def fingerprint(self) -> str:
        """sha256 in hex of all that a template depends on: what the arguments say, and what the files are.

        A file is told by path, device, inode, size and times, not by reading it: QEMU
        and the kernel are 17 MiB each and this is on the way of every start. A copy of
        the same content gives another fingerprint, which costs a template and no harm.
        The processor counts, which the guest sees (KVM), or at least its TSC. Raises
        MissingPartError for a file that is not there.
        """
        digest = hashlib.sha256()
        for option in replace(self, shared_memory=False).options(name="", fds=NO_DESCRIPTORS):
            digest.update("\0".join(option).encode() + b"\n")
        for part in (self.qemu, self.kernel, self.image):
            digest.update(repr(_file_identity(part)).encode())
        if self.accel is Accel.KVM:
            digest.update(os.uname().release.encode())
        digest.update(repr(_processor()).encode())
        return digest.hexdigest()

    def check_parts(self) -> None:
        """Raise MissingPartError if QEMU, the kernel or the image is not there."""
        for part in (self.qemu, self.kernel, self.image):
            _file_identity(part)
        if not os.access(self.qemu, os.X_OK):
            raise MissingPartError(f"{self.qemu} cannot be executed", hint="check vm.qemu in the configuration")

    def with_kernel_args(self, *words: str) -> "Machine":
        """The same machine with further words for its kernel, before the administrator's: those may end in `--`."""
        return replace(self, kernel_args=" ".join(filter(None, (*words, self.kernel_args))))

    def _machine(self) -> str:
        """mem-merge: where the host merges equal pages (KSM), one machine could feel by time what another one has."""
        off = "vmport=off,smbus=off,sata=off,usb=off,i8042=off,hpet=off,dump-guest-core=off,mem-merge=off"
        return f"q35,memory-backend=base,{off}"

    def _memory(self) -> str:
        """No DIMM slots: virtio-mem needs none, only room in the address space."""
        if self.max_memory_mib == self.base_memory_mib:
            return f"size={self.base_memory_mib}M"
        return f"size={self.base_memory_mib}M,maxmem={self.max_memory_mib}M"

    def _memory_backend(self, fd: int) -> str:
        size = f"id=base,size={self.base_memory_mib}M"
        if fd >= 0:
            # Opened anew by its name, so it need not be open for more than QEMU may do with it.
            return (
                f"memory-backend-file,{size},mem-path=/proc/self/fd/{fd},share={'on' if self.shared_memory else 'off'}"
            )
        return f"memory-backend-memfd,{size},share=on" if self.shared_memory else f"memory-backend-ram,{size}"

    def _memory_device(self) -> list[tuple[str, str]]:
        """virtio-mem with all that the machine may ever have, and nothing of it yet; only address space is reserved."""
        if not self.room_mib:
            return []
        size = f"id=more,size={self.room_mib}M,reserve=off"
        return [
            (
                "-object",
                f"memory-backend-memfd,{size},share=on" if self.shared_memory else f"memory-backend-ram,{size}",
            ),
            (
                "-device",
                f"virtio-mem-pci,id={MEMORY_DEVICE},memdev=more,requested-size=0,unplugged-inaccessible=on,bus=pcie.0,addr=0x4",
            ),
        ]

    def _port_options(self, fds: Sequence[int]) -> list[tuple[str, str]]:
        """The ports, each on its socket. Two interrupts for all of them: one a queue would take more than there are."""
        device = f"virtio-serial-pci,id={PORT_BUS},max_ports={MAX_PORTS},vectors=2,{MODERN},bus=pcie.0,addr=0x5"
        options = [("-device", device)]
        for number, fd in enumerate(fds):
            properties = port_properties(number, port_id(number))
            options += [
                ("-chardev", f"socket,id={properties['chardev']},fd={fd}"),
                ("-device", _option("virtserialport", properties)),
            ]
        return options


def empty_medium(*, read_only: bool) -> str:
    """The block node of a drive without a disk: of no bytes at all."""
    return "empty-read-only" if read_only else "empty"


def drive_properties(*, read_only: bool) -> dict[str, str | int]:
    """What all virtio-blk drives of containers have in common.

    One queue: QEMU serves all disks from one thread, and a queue per vCPU costs an interrupt vector each. Errors go to
    the guest: the default would stop the machine when the host's disk is full.
    """
    common: dict[str, str | int] = {"disable-legacy": "on", "num-queues": 1, "werror": "report", "rerror": "report"}
    return common if read_only else common | {"discard": "on", "write-zeroes": "on"}


def _drives() -> list[tuple[str, str]]:
    options = []
    for read_only in (True, False):
        node = empty_medium(read_only=read_only)
        options.append(
            ("-blockdev", f"driver=null-co,node-name={node},size=0,read-only={'on' if read_only else 'off'}")
        )
    for slot, serial in enumerate((*LAYER_DRIVES, *WRITABLE_DRIVES), start=_FIRST_DRIVE):
        read_only = serial in LAYER_DRIVES
        properties = {
            "id": serial,
            "serial": serial,
            "drive": empty_medium(read_only=read_only),
            **drive_properties(read_only=read_only),
            "bus": "pcie.0",
            "addr": f"{slot:#x}",
        }
        options.append(("-device", _option("virtio-blk-pci", properties)))
    return options


def _debugger(fd: int) -> list[tuple[str, str]]:
    """Where QEMU waits for a debugger: no guest sees it, so a template and its clones need not agree in that."""
    return [("-chardev", f"socket,id=gdb,fd={fd},server=on,wait=off"), ("-gdb", "chardev:gdb")]


def _option(driver: str, properties: Mapping[str, str | int]) -> str:
    return ",".join((driver, *(f"{key}={value}" for key, value in properties.items())))


def port_id(number: int, use: int = 0) -> str:
    """What QEMU knows a port and its socket by: another thing for each use of the number (shim/vm/ports.py)."""
    return f"{PORT}{number}.{use}" if use else f"{PORT}{number}"


def port_properties(number: int, device: str) -> dict[str, str | int]:
    """What port `number` is: 0 is the one for control. The bus keeps its own number 0 for a console."""
    return {
        "id": device,
        "bus": f"{PORT_BUS}.0",
        "nr": number + 1,
        "chardev": device,
        "name": port_name(port_token(number)) if number else CONTROL_PORT,
    }


def _escape(path: Path) -> str:
    """A path in a QEMU option list, where a comma is doubled."""
    return str(path).replace(",", ",,")


def _file_identity(path: Path) -> tuple[str, int, int, int, int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise MissingPartError(
            f"{path}: no such file", hint="run install.sh, or name it in the configuration"
        ) from None
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}") from error
    real = os.path.realpath(path)
    return real, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _processor() -> list[str]:
    """What /proc/cpuinfo says of the first processor, without what changes by the minute."""
    lines = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].splitlines()
    return [
        line
        for line in lines
        if line.startswith(("vendor_id", "cpu family", "model", "stepping", "microcode", "flags"))
    ]
