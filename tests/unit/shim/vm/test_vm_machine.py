"""A machine is its argument list and its fingerprint."""

import os
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from shim.errors import ConfigError, MissingPartError
from shim.vm.machine import Accel, Machine


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
    options = machine.options(name="qemubox-cafe", qmp_fd=7, console_fd=8)
    assert "\n".join(" ".join(option) for option in options).replace(str(tmp_path), "DIR") == "\n".join(
        (
            "-name guest=qemubox-cafe",
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-S",
            "-display none",
            "-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
            "-machine q35,accel=tcg,memory-backend=base,"
            "vmport=off,smbus=off,sata=off,usb=off,i8042=off,hpet=off,dump-guest-core=off",
            "-cpu max",
            "-smp cpus=4,sockets=1,cores=4,threads=1",
            "-m size=128M,maxmem=2176M",
            "-object memory-backend-memfd,id=base,size=128M,share=on",
            "-kernel DIR/vmlinux",
            "-append console=ttyS0 loglevel=4 panic=-1 reboot=t root=/dev/vda rootfstype=erofs ro init=/init "
            "no_timer_check lpj=5000000 maxcpus=1 "
            "memhp_default_state=online memory_hotplug.online_policy=auto-movable",
            "-blockdev driver=file,node-name=system,filename=DIR/guest.erofs,read-only=on,locking=off",
            "-device virtio-blk-pci,id=system,drive=system,serial=system,num-queues=1,disable-legacy=on,"
            "bus=pcie.0,addr=0x1",
            "-device virtio-rng-pci,id=rng,disable-legacy=on,bus=pcie.0,addr=0x2",
            "-device pci-bridge,id=slots,chassis_nr=1,bus=pcie.0,addr=0x3",
            "-device vmgenid,guid=auto",
            "-device pvpanic",
            "-chardev socket,id=console,fd=8",
            "-serial chardev:console",
            "-chardev socket,id=qmp,fd=7",
            "-mon chardev=qmp,mode=control",
        )
    )


def test_args_are_the_options_one_after_the_other(machine: Machine) -> None:
    args = machine.args(name="n", qmp_fd=7, console_fd=8)
    assert args[0] == str(machine.qemu)
    assert args[1:] == [word for option in machine.options(name="n", qmp_fd=7, console_fd=8) for word in option]


def test_a_clone_s_arguments_are_its_template_s_and_a_wait_for_its_state(machine: Machine) -> None:
    template = machine.args(name="n", qmp_fd=7, console_fd=8)
    assert machine.args(name="n", qmp_fd=7, console_fd=8, restored=True) == [*template, "-incoming", "defer"]


def test_memory_is_private_unless_it_must_be_shared(machine: Machine) -> None:
    words = replace(machine, shared_memory=False).args(name="n", qmp_fd=7, console_fd=8)
    assert "memory-backend-ram,id=base,size=128M" in words


def test_without_room_for_more_memory_there_is_no_maxmem(machine: Machine) -> None:
    """QEMU refuses a maxmem that equals the size."""
    assert "size=128M" in replace(machine, max_memory_mib=128).args(name="n", qmp_fd=7, console_fd=8)


@pytest.mark.parametrize(
    ("accel", "model", "expected"),
    [(Accel.KVM, "", "host,migratable=on"), (Accel.TCG, "", "max"), (Accel.KVM, "EPYC-v4", "EPYC-v4")],
)
def test_the_cpu_model_follows_the_accelerator(machine: Machine, accel: Accel, model: str, expected: str) -> None:
    args = replace(machine, accel=accel, cpu_model=model).args(name="n", qmp_fd=7, console_fd=8)
    assert args[args.index("-cpu") + 1] == expected
    assert args[args.index("-machine") + 1].startswith(f"q35,accel={accel},")


def test_the_administrators_kernel_words_come_last(machine: Machine) -> None:
    more = replace(machine, kernel_args="mitigations=off").with_kernel_args("quiet")
    assert machine.with_kernel_args("quiet").kernel_args == "quiet"
    assert more.kernel_command_line.endswith(" memory_hotplug.online_policy=auto-movable quiet mitigations=off")


def test_a_comma_in_the_images_path_is_doubled(machine: Machine, tmp_path: Path) -> None:
    args = replace(machine, image=tmp_path / "a,b").args(name="n", qmp_fd=7, console_fd=8)
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
    [{"max_vcpus": 8}, {"accel": Accel.KVM}, {"shared_memory": False}, {"kernel_args": "x"}, {"base_memory_mib": 256}],
)
def test_the_fingerprint_changes_with_each_value(machine: Machine, changes: dict[str, int]) -> None:
    assert replace(machine, **changes).fingerprint() != machine.fingerprint()  # type: ignore[arg-type]


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
