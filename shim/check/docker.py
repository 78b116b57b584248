"""docker's daemon.json: whether it can be read, and what it has of us. docker needs no entry to find us."""

from pathlib import Path
from typing import Final

from cni import document
from cni.document import DocumentError, Json
from shim.check.host import Host
from shim.check.line import Report
from shim.version import RUNTIME_NAME

_FILE: Final = "/etc/docker/daemon.json"


async def look(host: Host, report: Report) -> None:
    """See the module."""
    daemon = host.which("dockerd")
    path = host.path(_FILE)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        if daemon:
            report.ok("docker", f"{daemon}, without {_FILE}: docker run --runtime {RUNTIME_NAME} (docker 23 or newer)")
        else:
            report.ok("docker", "no dockerd here")
        return
    try:
        entries = document.mapping(document.load_object(data), "runtimes") if data.strip() else {}
    except DocumentError as error:
        report.failure(str(path), f"{error}: dockerd does not start", "mend the line")
        return
    _runtimes(report, path, entries)


def _runtimes(report: Report, path: Path, entries: Json) -> None:
    ours = {name: entry for name, entry in entries.items() if "qemubox" in f"{name} {entry}"}
    by_path = [name for name, entry in ours.items() if isinstance(entry, dict) and entry.get("path")]
    if by_path:
        report.failure(
            str(path),
            f"the runtime {by_path[0]!r} is named by a path, which docker calls as it calls runc",
            f'write "{by_path[0]}": {{"runtimeType": "{RUNTIME_NAME}"}}',
        )
    elif ours:
        report.ok(str(path), f"docker run --runtime {next(iter(ours))}")
    else:
        report.ok(str(path), f"no entry, and none is needed: docker run --runtime {RUNTIME_NAME} (docker 23 or newer)")
