"""/etc/qemubox/config.toml: every key, its type, its bounds and its default, in one table.

The environment variable QEMUBOX_CONFIG names another file. A missing file means all
defaults; an unknown key or a bad value is an error that names the key, the value and
what is allowed, and no container starts until it is mended.
`deploy/config.toml` is the same table as text; a test compares the two.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final, Literal, TypeVar, get_args, get_origin

from shim.errors import ConfigError

DEFAULT_PATH: Final = "/etc/qemubox/config.toml"
SHARE: Final = "/usr/local/share/qemubox"


def _between(low: int, high: int, default: int) -> int:
    """A whole number from `low` to `high`."""
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """[runtime]: where things are kept on the host, and who runs QEMU."""

    # Running containers: journals, sockets, consoles. A tmpfs.
    state_dir: str = "/run/qemubox"
    # Writable layers of running containers.
    data_dir: str = "/var/lib/qemubox"
    # Converted image layers.
    cache_dir: str = "/var/cache/qemubox"
    # The unprivileged user that QEMU and its helpers run as.
    user: str = "qemubox"


@dataclass(frozen=True, slots=True)
class VmConfig:
    """[vm]: the virtual machine."""

    # How the guest's instructions run: auto tries KVM for real and falls back to tcg.
    accel: Literal["auto", "kvm", "tcg"] = "auto"
    # Whether auto may fall back to tcg, which is a way to run but no security boundary.
    allow_tcg: bool = True
    # QEMU: a path, or a name to look for in PATH.
    qemu: str = "qemu-system-x86_64"
    # The guest's kernel and root image.
    kernel: str = f"{SHARE}/vmlinux"
    image: str = f"{SHARE}/guest.erofs"
    # Further words for the guest kernel's command line.
    kernel_args: str = ""
    # vCPUs and memory of a container that sets no limit of its own.
    default_cpus: int = _between(1, 64, 1)
    default_memory_mib: int = _between(64, 1048576, 512)
    # The most that a container may have; 0 means as many, or as much, as the host has.
    max_cpus: int = _between(0, 64, 0)
    max_memory_mib: int = _between(0, 1048576, 0)
    # Memory of the machine itself, on top of what the container gets.
    base_memory_mib: int = _between(96, 4096, 128)
    # From the start of QEMU to vminitd's first answer.
    boot_timeout_s: int = _between(1, 600, 60)
    # How much of the guest's console is kept.
    console_kib: int = _between(16, 65536, 256)


@dataclass(frozen=True, slots=True)
class VsockConfig:
    """[vsock]: how the shim and the guest talk."""

    # kernel needs /dev/vhost-vsock; user runs the daemon below; auto takes the kernel's where it is.
    mode: Literal["auto", "kernel", "user"] = "auto"
    # vhost-device-vsock: a path, or a name to look for in PATH.
    daemon: str = "vhost-device-vsock"


@dataclass(frozen=True, slots=True)
class RootfsConfig:
    """[rootfs]: the container's file system."""

    # Size of the writable layer; the file behind it is sparse.
    writable_mib: int = _between(16, 16777216, 10240)
    # Converted layers above this are removed, least recently used first, never one in use.
    cache_limit_mib: int = _between(64, 16777216, 20480)
    # erofs-utils and e2fsprogs: paths, or names to look for in PATH.
    mkfs_erofs: str = "mkfs.erofs"
    mkfs_ext4: str = "mkfs.ext4"
    # From the start of one layer's conversion to its end.
    convert_timeout_s: int = _between(1, 86400, 600)


@dataclass(frozen=True, slots=True)
class LogConfig:
    """[log]: what the shim and the guest say."""

    # containerd's -debug raises this to debug.
    level: Literal["debug", "info", "warning", "error"] = "info"


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file. Sections and keys are those of the dataclasses."""

    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    vm: VmConfig = field(default_factory=VmConfig)
    vsock: VsockConfig = field(default_factory=VsockConfig)
    rootfs: RootfsConfig = field(default_factory=RootfsConfig)
    log: LogConfig = field(default_factory=LogConfig)


_SECTIONS: Final = {
    "runtime": RuntimeConfig,
    "vm": VmConfig,
    "vsock": VsockConfig,
    "rootfs": RootfsConfig,
    "log": LogConfig,
}
_Section = TypeVar("_Section", RuntimeConfig, VmConfig, VsockConfig, RootfsConfig, LogConfig)


def load(environment: Mapping[str, str] = os.environ) -> Config:
    """Read the file that QEMUBOX_CONFIG names, or /etc/qemubox/config.toml.

    Raises ConfigError for what cannot be read or is not allowed. A file that was named
    must be there; the default one need not.
    """
    named = environment.get("QEMUBOX_CONFIG")
    path = Path(named or DEFAULT_PATH)
    try:
        text = path.read_text()
    except FileNotFoundError:
        if named:
            raise ConfigError(f"{path}: no such file", hint="QEMUBOX_CONFIG names it") from None
        return Config()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    try:
        return parse(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", hint=error.hint) from None


def parse(text: str) -> Config:
    """Read the text of a configuration file. Raises ConfigError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}") from error
    for name in document:
        if name not in _SECTIONS:
            raise ConfigError(f"unknown section [{name}]", hint=f"there are {', '.join(_SECTIONS)}")

    def section(kind: type[_Section], name: str) -> _Section:
        return _section(kind, name, document.get(name, {}))

    return Config(
        runtime=section(RuntimeConfig, "runtime"),
        vm=section(VmConfig, "vm"),
        vsock=section(VsockConfig, "vsock"),
        rootfs=section(RootfsConfig, "rootfs"),
        log=section(LogConfig, "log"),
    )


def _section(kind: type[_Section], name: str, table: object) -> _Section:
    if not isinstance(table, dict):
        raise ConfigError(f"{name} = {table!r}: must be a section, [{name}]")
    known = {item.name: item for item in fields(kind)}
    for key, value in table.items():
        if key not in known:
            raise ConfigError(f"unknown key {key} in [{name}]", hint=f"there are {', '.join(known)}")
        _check(f"{name}.{key}", value, known[key].type, known[key].metadata)
    return kind(**table)


def _check(key: str, value: object, kind: object, bounds: Mapping[str, int]) -> None:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ConfigError(f"{key} = {value!r}: must be one of {', '.join(get_args(kind))}")
    elif kind is bool:
        if not isinstance(value, bool):
            raise ConfigError(f"{key} = {value!r}: must be true or false")
    elif kind is int:
        if isinstance(value, bool) or not isinstance(value, int) or not bounds["low"] <= value <= bounds["high"]:
            raise ConfigError(f"{key} = {value!r}: must be a whole number from {bounds['low']} to {bounds['high']}")
    elif not isinstance(value, str):
        raise ConfigError(f"{key} = {value!r}: must be a text in quotes")
    elif key.endswith("_dir") and not value.startswith("/"):
        raise ConfigError(f"{key} = {value!r}: must be an absolute path")
