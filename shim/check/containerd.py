"""The containerds of this host: which run, of what version, whether they find our shim, and their configuration."""

import os
import re
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from shim.check import criconfig
from shim.check.host import Host, dotted, version
from shim.check.line import Report
from shim.check.thread import in_thread
from shim.config import DEFAULT_PATH
from shim.errors import ConfigError, QemuboxError
from shim.version import BINARY_NAME, VERSION

# The host's own, that of a full installation, docker's, and k3s'.
HOSTS: Final = "/run/containerd/containerd.sock"
FULL: Final = "/run/qemubox/containerd.sock"
SOCKETS: Final = (HOSTS, FULL, "/run/docker/containerd/containerd.sock", "/run/k3s/containerd/containerd.sock")
FULL_CONFIG: Final = "/etc/qemubox/containerd.toml"
_OLDEST: Final = (1, 6)
_CONNECT_S: Final = 3.0
_CALL_S: Final = 10.0


async def look(host: Host, report: Report) -> None:
    """See the module."""
    running = [path for path in _sockets(host.environ) if host.path(path).is_socket()]
    answering = [path for path in running if await _look_at(host, report, path)]
    if not answering:
        _none_runs(host, report)
    if host.path(FULL_CONFIG).exists() and FULL not in running:
        report.warning(
            FULL, "this installation's own containerd does not run", "systemctl enable --now qemubox-containerd"
        )
    if HOSTS not in answering and host.path(criconfig.DEFAULT).exists():
        configuration(report, host.path(criconfig.DEFAULT), host.root)


def _sockets(environ: Mapping[str, str]) -> list[str]:
    """Where there may be one: first where clients are told to look."""
    return list(dict.fromkeys(filter(None, (environ.get("CONTAINERD_ADDRESS", ""), *SOCKETS))))


def _none_runs(host: Host, report: Report) -> None:
    program = host.which("containerd")
    if program is None:
        report.failure(
            "containerd",
            "there is none, in PATH or running",
            "apt-get install containerd, or ./install.sh of a release",
        )
        return
    start = "systemctl start containerd" if host.path("/run/systemd/system").is_dir() else "containerd &"
    report.warning("containerd", f"{program} is there, and none runs", start)


async def _look_at(host: Host, report: Report, path: str) -> bool:
    """Whether somebody answers there."""
    try:
        pid = await in_thread(lambda: _peer(host.path(path)))
        said = await _version(host.path(path))
    except (OSError, QemuboxError) as error:
        reason = error.message if isinstance(error, QemuboxError) else error.strerror or str(error)
        report.failure(path, f"nobody answers: {reason}", "look at its log: journalctl -u containerd -n 20")
        return False
    numbers = version(said, "")
    if numbers is not None and numbers < _OLDEST:
        report.failure(path, f"containerd {said} is older than {dotted(_OLDEST)}", "install a newer containerd")
    else:
        report.ok(path, f"containerd {said}, process {pid}")
    await _shim(host, report, path, pid)
    _configuration_of(host, report, pid, before_2=numbers is not None and numbers < (2,))
    return True


def _peer(path: Path) -> int:
    """The process that listens there: struct ucred, unix(7). Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(_CONNECT_S)
        sock.connect(str(path))
        pid, _uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(pid)


async def _version(path: Path) -> str:
    # Neither the service nor a shim needs gRPC (docs/decisions/0030).
    from google.protobuf import empty_pb2

    from api import containerd_pb2
    from shim.containerd.connection import Connection

    async with Connection(path, "default") as connection:
        reply = await connection.call(
            "version.v1.Version/Version",
            empty_pb2.Empty(),
            containerd_pb2.VersionResponse,
            "version",
            deadline_s=_CALL_S,
        )
    return reply.version.lstrip("v")


def environment(host: Host, pid: int) -> dict[str, str]:
    """What a process was started with; nothing where it has ended. Raises OSError."""
    words = (host.text(f"/proc/{pid}/environ") or "").split("\0")
    return dict(word.partition("=")[::2] for word in words if "=" in word)


def with_its_path(environ: Mapping[str, str], root: Path = Path("/")) -> dict[str, str]:
    """The environment with the PATH of the containerd that runs: it is there that shims and plugins look for programs.

    The one that clients are told to use, else this installation's own before the host's; without one, as it is.
    """
    for name in filter(None, (environ.get("CONTAINERD_ADDRESS", ""), FULL, HOSTS)):
        try:
            pid = _peer(root / name.lstrip("/"))
            words = (root / f"proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:  # none runs there, or it has just ended
            continue
        path = next((os.fsdecode(word[5:]) for word in words if word.startswith(b"PATH=")), "")
        if path:
            # A release's programs come behind those, as the shim's launcher has it (deploy/launcher).
            theirs, ours = path.split(":"), environ.get("PATH", "").split(":")
            brought = [each for each in ours if each.endswith("/lib/qemubox/runtime/bin") and each not in theirs]
            return {**environ, "PATH": ":".join([path, *brought])}
    return dict(environ)


def find_shim(host: Host, pid: int, path: str) -> str | None:
    """The shim that this containerd would run: as it looks for it, in its PATH, then beside its own program.

    (containerd, resolveRuntimePath.) In its own root directory, which may be another than ours.
    """
    root = host.path(f"/proc/{pid}/root")
    own = os.path.dirname(os.path.realpath(host.path(f"/proc/{pid}/exe")))
    for directory in [*path.split(":"), own]:
        if directory and os.access(root / directory.lstrip("/") / BINARY_NAME, os.X_OK):
            return f"{directory}/{BINARY_NAME}"
    return None


async def _shim(host: Host, report: Report, path: str, pid: int) -> None:
    if not pid:  # SO_PEERCRED, of a process in a namespace that we do not see
        report.warning(BINARY_NAME, f"the containerd at {path} is in another PID namespace", "check in there, too")
        return
    its = environment(host, pid)
    found = find_shim(host, pid, its.get("PATH", ""))
    if found is None:
        report.failure(
            BINARY_NAME,
            f"the containerd at {path} does not find it: its PATH is {its.get('PATH', '') or 'empty'}",
            f"link it into one of these directories: ln -s PREFIX/bin/{BINARY_NAME} /usr/local/bin/",
        )
        return
    said = await host.run([f"/proc/{pid}/root{found}" if host.root == Path("/") else str(host.path(found)), "-v"])
    numbers = re.search(r"\d+\.\d+\.\d+\S*", said.out)
    if said.status != 0 or numbers is None:
        report.failure(found, f"-v fails: {said.last}", "run install.sh again")
    elif numbers[0] != VERSION:
        report.warning(found, f"is of version {numbers[0]}, and this command of {VERSION}", "run install.sh again")
    else:
        report.ok(found, f"version {VERSION}, found by the containerd at {path}")
    _same_configuration(host, report, its.get("QEMUBOX_CONFIG", DEFAULT_PATH), path)


def _same_configuration(host: Host, report: Report, its: str, path: str) -> None:
    ours = host.environ.get("QEMUBOX_CONFIG", DEFAULT_PATH)
    if its != ours:
        report.warning(
            "QEMUBOX_CONFIG",
            f"the containerd at {path} has {its}, and this command {ours}: its containers go by another configuration",
            f"QEMUBOX_CONFIG={its} qemubox check",
        )


def _configuration_of(host: Host, report: Report, pid: int, *, before_2: bool) -> None:
    """The file that its command line names, else the default."""
    words = (host.text(f"/proc/{pid}/cmdline") or "").split("\0")
    name = criconfig.DEFAULT
    for index, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option in ("-c", "--config", "-config"):
            name = value if equals else words[index + 1] if index + 1 < len(words) else name
    configuration(report, host.path(name), host.root, before_2=before_2)


def configuration(report: Report, path: Path, root: Path, *, before_2: bool = False) -> None:
    """What a containerd reads, of before 2.0 or newer, and whether the CRI knows our runtime."""
    try:
        files = criconfig.read(path, root)
    except FileNotFoundError:
        report.ok(str(path), "not there: containerd's defaults, which is enough for ctr, nerdctl and docker")
        return
    except ConfigError as error:
        what, _, why = error.message.partition(": ")
        report.failure(what, why, error.hint or "mend it")
        return
    found = criconfig.entries(files)
    if misplaced := [entry for entry in found if entry.misplaced]:
        entry, file = misplaced[0], next(file for file in files if file.path == misplaced[0].path)
        report.failure(
            entry.path,
            f"the runtime {entry.name} stands under {entry.misplaced!r}, which version {file.version} has not",
            f"write {criconfig.snippet(file.version)}",
        )
    elif found and before_2 and found[-1].path in (lost := criconfig.lost_in_1(files)):
        report.failure(
            found[-1].path,
            f"the runtime {found[-1].name!r} is lost: this containerd takes the CRI's section of the last file whole",
            f"have the whole section in one file: {', '.join(lost)} has another part of it",
        )
    elif found:
        report.ok(found[0].path, f"version {files[0].version}, with the runtime {found[0].name!r} for the CRI")
    elif criconfig.cri_is_off(files):
        report.ok(str(path), f"version {files[0].version}, without the CRI, which alone would need an entry")
    else:
        report.warning(
            str(path),
            f"version {files[0].version}, no entry for the CRI: Kubernetes and crictl cannot ask for qemubox",
            f"./install.sh --shim-only, or add {criconfig.snippet(files[0].version)}",
        )
