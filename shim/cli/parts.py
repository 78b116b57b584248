"""The parts of a report (bundle.py): each is a file's name in it, and what makes its bytes or raises.

No environment variable, of whatever process; nothing of a container's specification, which holds its environment; no
content of a container's file. What containerd's log may have of those, debug lines of the CRI's with whole requests, is
left out line by line. A journal's entries are told by what they name, and a machine by the files of its own.
"""

import asyncio
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final, NamedTuple

from shim import config, inspection, timelines
from shim.cli import config_show, ps
from shim.copy.address import Shim, locate, shims
from shim.errors import ConfigError, QemuboxError
from shim.journal import KINDS, Journal
from shim.reclaim import command_line
from shim.template.choice import open_store
from shim.version import VERSION

# A program that does not answer is given up; `check` boots a machine.
_PROGRAM_S: Final = 20.0
_CHECK_S: Final = 180.0
_UNDO_S: Final = 15.0
_MACHINES_MOST: Final = 50
_LOG_LINES: Final = 4000
_UNITS: Final = ("containerd", "qemubox", "qemubox-containerd", "qemubox-template", "qemubox-gc", "docker")
# Lines of a log that may hold a container's environment: containerd's and docker's at debug and below, as text and as
# JSON (`[debug] format`), which have whole requests and specifications; and whatever names one.
_NOT_TOLD: Final = re.compile(
    r"""level"?[=:]\s*"?(?:debug|trace) | ContainerConfig | envs?[\\"]*\s*[=:]""", re.IGNORECASE | re.VERBOSE
)
_FACTS: Final = (
    *("/etc/os-release", "/proc/version", "/proc/meminfo", "/proc/loadavg", "/proc/uptime", "/proc/modules"),
    *("/proc/sys/kernel/yama/ptrace_scope", "/proc/sys/fs/inotify/max_user_instances", "/proc/pressure/memory"),
    *("/sys/module/kvm_intel/parameters/nested", "/sys/module/kvm_amd/parameters/nested", "/proc/pressure/io"),
)
_DEVICES: Final = ("kvm", "vhost-vsock", "vhost-net", "net/tun", "loop-control")


class Part(NamedTuple):
    """One file of a report. `make` may raise anything."""

    name: str
    make: Callable[[], bytes]


def parts(container: str) -> Iterator[Part]:
    """All of them, of the machines only that container's where one is named."""
    yield Part("version.txt", _version)
    yield Part("config.json", lambda: _config().encode())
    yield Part("ps.json", lambda: _ps(_machines(container)))
    yield Part("check.json", lambda: output(own("check", "--json"), _CHECK_S, any_status=True))
    yield Part("templates.json", _templates)
    yield Part("timeline.jsonl", _timeline)
    yield Part("gc.json", lambda: output(own("gc", "--dry-run", "--json"), _PROGRAM_S, any_status=True))
    yield Part("host.txt", _host)
    yield Part("containerd.txt", lambda: output(("containerd", "--version"), _PROGRAM_S))
    yield Part("qemu.txt", lambda: output((config.load().vm.qemu, "--version"), _PROGRAM_S))
    yield Part("log.txt", _log)
    try:
        machines = _machines(container)
    except (QemuboxError, OSError) as error:
        yield Part("machines", _raising(error))
        return
    for shim in machines[:_MACHINES_MOST]:
        yield from _machine(shim)


def _machine(shim: Shim) -> Iterator[Part]:
    place = f"machines/{shim.directory.name}"
    yield Part(f"{place}/files.txt", lambda: _listing(shim.directory))
    yield Part(f"{place}/journal.txt", lambda: _journal(shim.directory))
    for name in ("address.json", inspection.FILE_NAME, "console.1", "console"):
        if (path := shim.directory / name).exists():
            yield Part(f"{place}/{name}", path.read_bytes)
    yield Part(f"{place}/arguments.txt", lambda: _qemu_arguments(shim.directory))


def without_secrets(text: str) -> str:
    """A log without the lines that may hold a container's environment, and with how many those were."""
    lines = text.splitlines()
    told = [line for line in lines if not _NOT_TOLD.search(line)]
    return "\n".join((*told, f"({len(lines) - len(told)} lines are left out)", ""))


def output(command: Sequence[str], timeout_s: float, *, any_status: bool = False) -> bytes:
    """What a program prints. Raises OSError, and RuntimeError with its words where it fails.

    One that does not end in time is told to, so that it can undo what it has made (`check`), and killed a while later.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) as process:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.terminate()
            try:
                process.communicate(timeout=_UNDO_S)
            except subprocess.TimeoutExpired:
                process.kill()
            raise RuntimeError(f"{command[0]} did not end within {timeout_s:g} s") from None
        except BaseException:
            process.kill()
            raise
    if process.returncode and not (any_status and out):
        words = err.decode(errors="replace").strip()
        raise RuntimeError(f"{command[0]} ended with status {process.returncode}: {words[-400:]}")
    return out


def own(*words: str) -> list[str]:
    """Our own command with these words, as a program: by our interpreter, with our packages, wherever they are."""
    program = f"import sys; sys.path[:] = {sys.path!r}; from shim.cli import main; sys.exit(main({list(words)!r}))"
    return [sys.executable, "-IS", "-c", program]


def _raising(error: Exception) -> Callable[[], bytes]:
    def make() -> bytes:
        raise error

    return make


def _state_dir() -> Path:
    return Path(config.load().runtime.state_dir)


def _machines(container: str) -> list[Shim]:
    """Those of that id, in whichever namespaces; else the one that other commands would take. Raises NotFoundError."""
    found = [each for each in shims(_state_dir()) if container in ("", each.address.id)]
    if container and not found:
        found = [locate(_state_dir(), container)]
    return sorted(found, key=lambda each: each.directory.stat().st_mtime, reverse=True)


def _version() -> bytes:
    lines = (
        f"qemubox {VERSION}",
        f"Python {sys.version}",
        sys.executable,
        f"modules of {Path(config.__file__).parent}",
    )
    return "\n".join((*lines, "")).encode()


def _config() -> str:
    path = os.environ.get("QEMUBOX_CONFIG") or config.DEFAULT_PATH
    return config_show.as_json(config.load(), path, config_show.given(path))


def _ps(machines: Sequence[Shim]) -> bytes:
    return json.dumps([asdict(line) for line in asyncio.run(ps.look(machines))], indent=1).encode()


def _timeline() -> bytes:
    return (_state_dir() / timelines.FILE_NAME).read_bytes()


def _templates() -> bytes:
    return json.dumps([asdict(entry) for entry in open_store(config.load()).entries()], indent=1, default=str).encode()


def _host() -> bytes:
    lines = [f"uname: {' '.join(platform.uname())}", f"CPUs: {os.sched_getaffinity(0)}"]
    processor = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0]
    lines += [line for line in processor.splitlines() if line.startswith(("model name", "flags", "microcode"))]
    lines.append(f"cgroup v2: {Path('/sys/fs/cgroup/cgroup.controllers').exists()}")
    for name in _DEVICES:
        lines.append(f"/dev/{name}: {_about(Path('/dev', name))}")
    try:
        runtime = config.load().runtime
    except ConfigError:  # told elsewhere
        runtime = config.Config().runtime
    for directory in (runtime.state_dir, runtime.data_dir, runtime.cache_dir, "/var/lib/containerd"):
        try:
            total, used, _free = shutil.disk_usage(directory)
            lines.append(f"{directory}: {used >> 20} of {total >> 20} MiB used")
        except OSError as error:
            lines.append(f"{directory}: {error.strerror}")
    for path in _FACTS:
        try:
            lines += [f"--- {path}", Path(path).read_text().rstrip()]
        except OSError as error:
            lines.append(str(error.strerror))
    return "\n".join((*lines, "")).encode()


def _about(path: Path) -> str:
    try:
        status = path.stat()
    except OSError as error:
        return str(error.strerror)
    return f"mode {status.st_mode:o}, owner {status.st_uid}:{status.st_gid}"


def _log() -> bytes:
    """The end of what systemd keeps of containerd's log, in which shims' lines are."""
    words = ["journalctl", "--no-pager", "-o", "short-iso", "-n", str(_LOG_LINES)]
    for unit in _UNITS:
        words += ["-u", unit]
    return without_secrets(output(words, _PROGRAM_S).decode(errors="replace")).encode()


def _listing(directory: Path) -> bytes:
    lines = []
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        lines.append(f"{status.st_mode:06o} {status.st_size:12} {status.st_mtime:.3f} {path.relative_to(directory)}")
    return "\n".join((*lines, "")).encode(errors="backslashreplace")


def _journal(directory: Path) -> bytes:
    lines = [
        f"{entry['kind']} {entry.get(KINDS.get(str(entry['kind']), ''), '')}" for entry in Journal(directory).entries()
    ]
    return "\n".join((*lines, "")).encode(errors="backslashreplace")


def _qemu_arguments(directory: Path) -> bytes:
    known = inspection.read(directory)
    if known is None:
        raise RuntimeError("it has not started")
    return command_line(known.qemu_pid).replace(b"\0", b"\n")
