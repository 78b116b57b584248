"""/etc/qemubox/config.toml: every key, its type, its bounds and its default, in one table.

The environment variable QEMUBOX_CONFIG names another file. A missing file means all
defaults; an unknown key or a bad value is an error that names the key, the value and
what is allowed, and no container starts until it is mended.
`deploy/config.toml` is the same table as text; a test compares the two.

Named tuples and not dataclasses: importing those costs more than starting the interpreter.
"""

import os
from collections.abc import Mapping
from typing import Annotated, Final, Literal, NamedTuple, TypeVar, get_args, get_origin

from shim.errors import ConfigError

DEFAULT_PATH: Final = "/etc/qemubox/config.toml"
SHARE: Final = "/usr/local/share/qemubox"


class Between(NamedTuple):
    """A whole number from `low` to `high`."""

    low: int
    high: int

    def refusal(self, value: object) -> str:
        """What is wrong with `value`; empty where nothing is."""
        if isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high:
            return ""
        return f"must be a whole number from {self.low} to {self.high}"


class Text(NamedTuple):
    """Words in quotes: not empty unless `optional`; a path that is `absolute`, or a `program`'s path or name."""

    optional: bool = False
    absolute: bool = False
    program: bool = False

    def refusal(self, value: object) -> str:
        """What is wrong with `value`; empty where nothing is."""
        if not isinstance(value, str):
            return "must be a text in quotes"
        if not value.isprintable():
            return "must have no control characters"
        if not value and not self.optional:
            return "must not be empty"
        if self.absolute and not value.startswith("/"):
            return "must be an absolute path"
        if self.program and "/" in value and not value.startswith("/"):
            return "must be an absolute path, or a name to look for in PATH"
        return ""


class Names(NamedTuple):
    """A list of names, each one of `known`."""

    known: tuple[str, ...]

    def refusal(self, value: object) -> str:
        """What is wrong with `value`; empty where nothing is."""
        if isinstance(value, list) and all(isinstance(name, str) and name in self.known for name in value):
            return ""
        return f"must be a list of some of {', '.join(self.known)}"


class Paths(NamedTuple):
    """A list of absolute paths, one at least."""

    def refusal(self, value: object) -> str:
        """What is wrong with `value`; empty where nothing is."""
        rule = Text(absolute=True)
        if isinstance(value, list) and value and not any(rule.refusal(path) for path in value):
            return ""
        return "must be a list of absolute paths"


_Name = Annotated[str, Text()]
_Words = Annotated[str, Text(optional=True)]
_Path = Annotated[str, Text(absolute=True)]
_Program = Annotated[str, Text(program=True)]
_ProgramIfAny = Annotated[str, Text(optional=True, program=True)]


class RuntimeConfig(NamedTuple):
    """Where things are kept on the host, and who runs QEMU."""

    # Running containers: journals, sockets, consoles. A tmpfs.
    state_dir: _Path = "/run/qemubox"
    # Writable layers of running containers.
    data_dir: _Path = "/var/lib/qemubox"
    # Converted image layers, and templates.
    cache_dir: _Path = "/var/cache/qemubox"
    # The unprivileged user, and its group, that QEMU and its helpers run as.
    user: _Name = "qemubox"
    # own: each machine's have a user id of their own instead, which nobody else has, and that user's group; one: they
    # all run as that user.
    user_ids: Literal["own", "one"] = "own"


class VmConfig(NamedTuple):
    """The virtual machine."""

    # How the guest's instructions run: auto tries KVM for real and falls back to tcg.
    accel: Literal["auto", "kvm", "tcg"] = "auto"
    # Whether auto may fall back to tcg, which is a way to run but no security boundary.
    allow_tcg: bool = True
    # The most memory that tcg may take for translated code. A container's start fills 40 MiB; with less than 64 it
    # takes up to four times as long, and machines need less memory.
    tcg_cache_mib: Annotated[int, Between(8, 1024)] = 256
    # QEMU: a path, or a name to look for in PATH.
    qemu: _Program = "qemu-system-x86_64"
    # The guest's kernel and root image.
    kernel: _Path = f"{SHARE}/vmlinux"
    image: _Path = f"{SHARE}/guest.erofs"
    # Further words for the guest kernel's command line.
    kernel_args: _Words = ""
    # vCPUs and memory of a container that sets no limit of its own.
    default_cpus: Annotated[int, Between(1, 64)] = 1
    default_memory_mib: Annotated[int, Between(64, 1048576)] = 512
    # The most that a container may have; 0 means as many, or as much, as the host has.
    max_cpus: Annotated[int, Between(0, 64)] = 0
    max_memory_mib: Annotated[int, Between(0, 1048576)] = 0
    # Memory of the machine itself, on top of what the container gets.
    base_memory_mib: Annotated[int, Between(96, 4096)] = 128
    # From the start of QEMU to vminitd's first answer.
    boot_timeout_s: Annotated[int, Between(1, 600)] = 60
    # How much of the guest's console is kept.
    console_kib: Annotated[int, Between(16, 65536)] = 256


class VsockConfig(NamedTuple):
    """How the shim and the guest talk."""

    # kernel needs /dev/vhost-vsock; serial takes virtio-serial ports, which QEMU has itself; user runs the daemon
    # below, and a machine's memory cannot be its template's then. auto: the kernel's where it is, else serial.
    mode: Literal["auto", "kernel", "serial", "user"] = "auto"
    # vhost-device-vsock: a path, or a name to look for in PATH.
    daemon: _Program = "vhost-device-vsock"


class RootfsConfig(NamedTuple):
    """The container's file system."""

    # Size of the writable layer; the file behind it is sparse.
    writable_mib: Annotated[int, Between(16, 16777216)] = 10240
    # Whether what a container has written comes back to its snapshot when it is paused and at its end, where commit,
    # diff and the next start find it. auto: but for the CRI's containers, which nobody commits or starts again.
    write_back: Literal["auto", "always", "never"] = "auto"
    # Converted layers above this are removed, least recently used first, never one in use.
    cache_limit_mib: Annotated[int, Between(64, 16777216)] = 20480
    # erofs-utils and e2fsprogs: paths, or names to look for in PATH.
    mkfs_erofs: _Program = "mkfs.erofs"
    mkfs_ext4: _Program = "mkfs.ext4"
    # From the start of one layer's conversion to its end.
    convert_timeout_s: Annotated[int, Between(1, 86400)] = 600


class VolumesConfig(NamedTuple):
    """Directories and files of the host in a container (docs/storage.md)."""

    # virtiofsd: a path, or a name to look for in PATH; "auto", or nothing, looks where distributions have it.
    daemon: _ProgramIfAny = "auto"


class NetworkConfig(NamedTuple):
    """The container's network, by CNI (docs/networking.md)."""

    # The CNI network of a container that comes with none of its own: neither a network namespace that somebody has made
    # for it, nor hooks that make one (nerdctl, docker). "none": nothing but a loopback interface.
    name: _Name = "qemubox"
    # Where that network's configuration is: a .conflist, .conf or .json. Not CNI's own directory, where the CRI would
    # take the first that it finds for the cluster's.
    conf_dir: _Path = "/etc/qemubox/net.d"
    # Where its plugins are.
    plugin_dirs: Annotated[tuple[str, ...], Paths()] = ("/opt/cni/bin", "/usr/lib/cni")
    # Where is kept what plugins have answered, as libcni does.
    cache_dir: _Path = "/var/lib/cni"
    # One plugin's answer.
    timeout_s: Annotated[int, Between(1, 600)] = 60
    # auto: the host's kernel carries the frames where it has /dev/vhost-net; off: QEMU does.
    vhost: Literal["auto", "off"] = "auto"


class TemplateConfig(NamedTuple):
    """Templates: machines start as clones of one that has booted before, and not by booting."""

    # auto clones the template that `qemubox template build` made, and boots where there is none;
    # per-namespace wants one for each containerd namespace; off always boots.
    mode: Literal["auto", "per-namespace", "off"] = "auto"
    # Templates above this are removed, oldest first; the one just made stays.
    limit_mib: Annotated[int, Between(256, 1048576)] = 2048


# Names of annotations, less the prefix io.qemubox (shim/annotations.py).
ANNOTATIONS: Final = (
    *("vm.cpus", "vm.memory_mib", "vm.accel", "vm.console_kib"),
    *("rootfs.writable_mib", "network.name", "template.mode"),
)


class AnnotationsConfig(NamedTuple):
    """What containers may ask for themselves, by annotations io.qemubox.* (docs/annotations.md)."""

    # Whoever may create a container may set those that are named here, within the bounds of this file; with any other
    # no container is created.
    allow: Annotated[tuple[str, ...], Names(ANNOTATIONS)] = ()


class LogConfig(NamedTuple):
    """What the shim and the guest say."""

    # auto is containerd's own level; containerd's debug raises every other to debug.
    level: Literal["auto", "debug", "info", "warning", "error"] = "auto"


class DebugConfig(NamedTuple):
    """Ways into machines for whoever looks for a fault in them; all are for root alone, and off (docs/debugging.md)."""

    # A Python prompt in the guest's own root, on its console: `qemubox console`. Machines boot then, and are no clones
    # of ordinary templates.
    guest_console: bool = False
    # QEMU waits for a debugger of the guest's kernel, at the socket gdb in the machine's directory. A machine stands
    # still from the debugger's connection on until it is told to go on.
    gdb: bool = False


class Config(NamedTuple):
    """The whole file: its sections."""

    runtime: RuntimeConfig = RuntimeConfig()
    vm: VmConfig = VmConfig()
    vsock: VsockConfig = VsockConfig()
    rootfs: RootfsConfig = RootfsConfig()
    volumes: VolumesConfig = VolumesConfig()
    network: NetworkConfig = NetworkConfig()
    template: TemplateConfig = TemplateConfig()
    annotations: AnnotationsConfig = AnnotationsConfig()
    log: LogConfig = LogConfig()
    debug: DebugConfig = DebugConfig()


_Section = TypeVar(
    "_Section",
    RuntimeConfig,
    VmConfig,
    VsockConfig,
    RootfsConfig,
    VolumesConfig,
    NetworkConfig,
    TemplateConfig,
    AnnotationsConfig,
    LogConfig,
    DebugConfig,
)


def load(environment: Mapping[str, str] = os.environ) -> Config:
    """Read the file that QEMUBOX_CONFIG names, or /etc/qemubox/config.toml.

    Raises ConfigError for what cannot be read or is not allowed. A file that was named
    must be there; the default one need not.
    """
    path, text = read(environment)
    if text is None:
        return Config()
    try:
        return parse(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", hint=error.hint) from None


def read(environment: Mapping[str, str] = os.environ) -> tuple[str, str | None]:
    """The path of the file that is in force, and its text; None where it is not there and need not be.

    Raises ConfigError for what cannot be read.
    """
    named = environment.get("QEMUBOX_CONFIG")
    path = named or DEFAULT_PATH
    try:
        with open(path, "rb") as file:
            return path, file.read().decode()
    except FileNotFoundError:
        if named:
            raise ConfigError(f"{path}: no such file", hint="QEMUBOX_CONFIG names it") from None
        return path, None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from error


def parse(text: str) -> Config:
    """Read the text of a configuration file. Raises ConfigError, the first where there are several."""
    config, faults = examine(text)
    if faults:
        raise faults[0]
    return config


def examine(text: str) -> tuple[Config, list[ConfigError]]:
    """What is right in the text of a configuration file, with defaults for the rest; and all that is wrong in it."""
    import tomllib  # only where there is a file: 3 ms

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return Config(), [ConfigError(f"not TOML: {error}")]
    faults: list[ConfigError] = []
    for name, value in document.items():
        if name not in Config._fields:
            what = (
                f"section [{name}]" if isinstance(value, dict) else f"key {name} = {value!r} before the first section"
            )
            faults.append(ConfigError(f"unknown {what}", hint=f"there are the sections {', '.join(Config._fields)}"))

    def section(kind: type[_Section], name: str) -> _Section:
        return _section(kind, name, document.get(name, {}), faults)

    config = Config(
        runtime=section(RuntimeConfig, "runtime"),
        vm=section(VmConfig, "vm"),
        vsock=section(VsockConfig, "vsock"),
        rootfs=section(RootfsConfig, "rootfs"),
        volumes=section(VolumesConfig, "volumes"),
        network=section(NetworkConfig, "network"),
        template=section(TemplateConfig, "template"),
        annotations=section(AnnotationsConfig, "annotations"),
        log=section(LogConfig, "log"),
        debug=section(DebugConfig, "debug"),
    )
    return config, faults


def _section(kind: type[_Section], name: str, table: object, faults: list[ConfigError]) -> _Section:
    if not isinstance(table, dict):
        faults.append(ConfigError(f"{name} = {table!r}: must be a section, [{name}]"))
        return kind()
    found = dict(table)
    for key, value in table.items():
        del found[key]
        if key not in kind._fields:
            known = ", ".join(kind._fields)
            faults.append(ConfigError(f"unknown key {name}.{key} = {value!r}", hint=f"there are {known}"))
        elif refusal := _refusal(kind.__annotations__[key], value):
            faults.append(ConfigError(f"{name}.{key} = {value!r}: {refusal}"))
        else:
            found[key] = tuple(value) if isinstance(value, list) else value
    return kind(**found)


def _refusal(kind: object, value: object) -> str:
    """What is wrong with `value` for a key of the type `kind`; empty where nothing is."""
    if kind is bool:
        return "" if isinstance(value, bool) else "must be true or false"
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        return "" if value in choices else f"must be one of {', '.join(choices)}"
    _, rule = get_args(kind)
    assert isinstance(rule, Between | Text | Names | Paths)
    return rule.refusal(value)
