"""A machine is its argument list and its fingerprint."""

import os
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from shim.errors import ConfigError, MissingPartError
from shim.vm.machine import Accel, Descriptors, Machine

FDS = Descriptors(qmp=7, console=8)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    for name in ("qemu", "vmlinux", "guest.erofs"):
        (tmp_path / name).write_text(name)
    (tmp_path / "qemu").chmod(0o755)
    return Machine(
        qemu=tmp_path / "qemu",
        kernel=tmp_path / "vmlinux",
        image=tmp_path / "guest.erofs",
        accel=Accel.TCG,
        max_vcpus=4,
        max_memory_mib=2176,
        shared_memory=True,
    )


def test_the_whole_argument_list(machine: Machine, tmp_path: Path) -> None:
    options = machine.options(name="qemubox-cafe", fds=FDS)
    assert "\n".join(" ".join(option) for option in options).replace(str(tmp_path), "DIR") == "\n".join(
        (
            "-name guest=qemubox-cafe",
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-S",
            "-display none",
            "-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
            "-machine q35,memory-backend=base,"
            "vmport=off,smbus=off,sata=off,usb=off,i8042=off,hpet=off,dump-guest-core=off,mem-merge=off",
            "-accel tcg,tb-size=256",
            "-cpu max",
            "-smp cpus=4,sockets=1,cores=4,threads=1",
            "-m size=128M,maxmem=2176M",
            "-object memory-backend-memfd,id=base,size=128M,share=on",
            "-kernel DIR/vmlinux",
            "-append console=ttyS0 loglevel=4 panic=-1 reboot=t root=/dev/vda rootfstype=erofs ro init=/init "
            "no_timer_check lpj=5000000 maxcpus=1 "
            "memhp_default_state=online memory_hotplug.online_policy=auto-movable tsc=reliable",
            "-blockdev driver=file,node-name=system,filename=DIR/guest.erofs,read-only=on,locking=off",
            "-device virtio-blk-pci,id=system,drive=system,serial=system,num-queues=1,disable-legacy=on,"
            "bus=pcie.0,addr=0x1",
            "-device virtio-rng-pci,id=rng,disable-legacy=on,bus=pcie.0,addr=0x2",
            "-device pci-bridge,id=slots,chassis_nr=1,bus=pcie.0,addr=0x3",
            "-blockdev driver=null-co,node-name=empty-read-only,size=0,read-only=on",
            "-blockdev driver=null-co,node-name=empty,size=0,read-only=off",
            *(
                f"-device virtio-blk-pci,id=layer{number},serial=layer{number},drive=empty-read-only,disable-legacy=on,"
                f"num-queues=1,werror=report,rerror=report,bus=pcie.0,addr={8 + number:#x}"
                for number in range(4)
            ),
            "-device virtio-blk-pci,id=writable0,serial=writable0,drive=empty,disable-legacy=on,num-queues=1,"
            "werror=report,rerror=report,discard=on,write-zeroes=on,bus=pcie.0,addr=0xc",
            "-object memory-backend-memfd,id=more,size=2048M,reserve=off,share=on",
            "-device virtio-mem-pci,id=memory,memdev=more,requested-size=0,unplugged-inaccessible=on,"
            "bus=pcie.0,addr=0x4",
            "-device virtio-balloon-pci,id=balloon,free-page-reporting=on,disable-legacy=on,bus=pcie.0,addr=0x6",
            "-device vmgenid,guid=auto",
            "-device pvpanic",
            "-chardev socket,id=console,fd=8",
            "-serial chardev:console",
            "-chardev socket,id=qmp,fd=7",
            "-mon chardev=qmp,mode=control",
        )
    )


def test_args_are_the_options_one_after_the_other(machine: Machine) -> None:
    args = machine.args(name="n", fds=FDS)
    assert args[0] == str(machine.qemu)
    assert args[1:] == [word for option in machine.options(name="n", fds=FDS) for word in option]


def test_a_clone_s_arguments_are_its_template_s_and_a_wait_for_its_state(machine: Machine) -> None:
    template = machine.args(name="n", fds=FDS)
    assert machine.args(name="n", fds=FDS, restored=True) == [*template, "-incoming", "defer"]


def test_memory_is_private_unless_it_must_be_shared(machine: Machine) -> None:
    words = replace(machine, shared_memory=False).args(name="n", fds=FDS)
    assert "memory-backend-ram,id=base,size=128M" in words
    assert "memory-backend-ram,id=more,size=2048M,reserve=off" in words


@pytest.mark.parametrize(("shared", "share"), [(True, "on"), (False, "off")])
def test_a_clone_s_memory_is_a_file_s(machine: Machine, shared: bool, share: str) -> None:
    """Not shared means that QEMU writes to pages of its own (mmap(2), MAP_PRIVATE)."""
    words = replace(machine, shared_memory=shared).args(name="n", fds=replace(FDS, memory=9))
    assert f"memory-backend-file,id=base,size=128M,mem-path=/proc/self/fd/9,share={share}" in words


def test_ports_are_there_from_the_start_each_on_its_socket(machine: Machine) -> None:
    fds = replace(FDS, ports=(10, 11, 12, 13))
    words = replace(machine, ports=True).args(name="n", fds=fds)
    first = words.index("virtio-serial-pci,id=ports,max_ports=64,vectors=2,disable-legacy=on,bus=pcie.0,addr=0x5")
    assert words[first + 1 : first + 9] == [
        "-chardev",
        "socket,id=port-0,fd=10",
        "-device",
        "virtserialport,id=port-0,bus=ports.0,nr=1,chardev=port-0,name=qemubox.control",
        "-chardev",
        "socket,id=port-1,fd=11",
        "-device",
        "virtserialport,id=port-1,bus=ports.0,nr=2,chardev=port-1,name=qemubox-port-001",
    ]
    assert fds.all == (7, 8, 10, 11, 12, 13)
    assert replace(fds, memory=9).all == (7, 8, 10, 11, 12, 13, 9)


def test_a_debugger_has_a_socket_that_listens_already(machine: Machine) -> None:
    """No TCP, no path: QEMU is handed it. Of what the guest sees, and of templates, it is no part."""
    plain = machine.args(name="n", fds=FDS)
    fds = replace(FDS, gdb=9)
    wanted = ["-chardev", "socket,id=gdb,fd=9,server=on,wait=off", "-gdb", "chardev:gdb"]
    assert machine.args(name="n", fds=fds) == [*plain, *wanted]
    assert fds.all == (7, 8, 9)


def test_without_room_for_more_memory_there_is_no_maxmem(machine: Machine) -> None:
    """QEMU refuses a maxmem that equals the size."""
    assert "size=128M" in replace(machine, max_memory_mib=128).args(name="n", fds=FDS)


@pytest.mark.parametrize(
    ("accel", "model", "expected"),
    [(Accel.KVM, "", "host,migratable=on"), (Accel.TCG, "", "max"), (Accel.KVM, "EPYC-v4", "EPYC-v4")],
)
def test_the_cpu_model_follows_the_accelerator(machine: Machine, accel: Accel, model: str, expected: str) -> None:
    args = replace(machine, accel=accel, cpu_model=model).args(name="n", fds=FDS)
    assert args[args.index("-cpu") + 1] == expected
    assert args[args.index("-accel") + 1].split(",")[0] == accel


def test_the_administrators_kernel_words_come_last(machine: Machine) -> None:
    more = replace(machine, kernel_args="mitigations=off").with_kernel_args("quiet")
    assert machine.with_kernel_args("quiet").kernel_args == "quiet"
    assert more.kernel_command_line.endswith(
        " memory_hotplug.online_policy=auto-movable tsc=reliable quiet mitigations=off"
    )


def test_the_clock_of_an_emulated_machine_is_not_doubted(machine: Machine) -> None:
    """By KVM there is a better one."""
    assert "tsc=reliable" in replace(machine, accel=Accel.TCG).kernel_command_line.split()
    assert "tsc=" not in replace(machine, accel=Accel.KVM).kernel_command_line


def test_a_comma_in_the_images_path_is_doubled(machine: Machine, tmp_path: Path) -> None:
    args = replace(machine, image=tmp_path / "a,b").args(name="n", fds=FDS)
    assert any(f"filename={tmp_path}/a,,b,read-only=on" in word for word in args)


def test_the_command_to_repeat_runs_without_our_descriptors(machine: Machine) -> None:
    words = shlex.split(machine.repeat_command())
    assert words[0] == str(machine.qemu)
    assert words[-2:] == ["-serial", "stdio"]
    assert not {"-S", "-chardev", "-mon"} & set(words)


@pytest.mark.parametrize("changes", [{"max_vcpus": 0}, {"max_memory_mib": 127}])
def test_impossible_machines_are_refused(machine: Machine, changes: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        replace(machine, **changes)  # type: ignore[arg-type]


def test_the_fingerprint_stays_the_same(machine: Machine) -> None:
    assert machine.fingerprint() == replace(machine).fingerprint()


@pytest.mark.parametrize(
    "changes",
    [
        {"max_vcpus": 8},
        {"accel": Accel.KVM},
        {"ports": True},
        {"kernel_args": "x"},
        {"base_memory_mib": 256},
        {"max_memory_mib": 2304},
    ],
)
def test_the_fingerprint_changes_with_each_value(machine: Machine, changes: dict[str, int]) -> None:
    assert replace(machine, **changes).fingerprint() != machine.fingerprint()  # type: ignore[arg-type]


def test_the_fingerprint_does_not_tell_whose_memory_it_is(machine: Machine) -> None:
    """The guest cannot see it: one template serves both kinds."""
    assert replace(machine, shared_memory=False).fingerprint() == machine.fingerprint()


@pytest.mark.parametrize("part", ["qemu", "kernel", "image"])
def test_the_fingerprint_changes_with_each_file(machine: Machine, part: str) -> None:
    before = machine.fingerprint()
    path = getattr(machine, part)
    path.write_text(path.read_text()[::-1])
    assert machine.fingerprint() != before


def test_a_replaced_file_of_equal_size_and_time_is_noticed(machine: Machine, tmp_path: Path) -> None:
    before = machine.fingerprint()
    found = machine.kernel.stat()
    other = tmp_path / "other"
    other.write_bytes(machine.kernel.read_bytes())
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.rename(machine.kernel)
    assert machine.fingerprint() != before


@pytest.mark.parametrize("part", ["qemu", "kernel", "image"])
def test_a_missing_part_is_named(machine: Machine, part: str) -> None:
    path = getattr(machine, part)
    path.unlink()
    with pytest.raises(MissingPartError, match=str(path)):
        machine.check_parts()


def test_a_qemu_that_cannot_be_executed_is_named(machine: Machine) -> None:
    machine.qemu.chmod(0o644)
    with pytest.raises(MissingPartError, match="cannot be executed"):
        machine.check_parts()
