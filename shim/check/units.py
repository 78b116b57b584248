"""The units of systemd that an installation brings: whether they are as they should be."""

from typing import Final

from shim.check.host import Host
from shim.check.line import Report

_SERVICES: Final = ("qemubox.service", "qemubox-containerd.service")
_AT_BOOT: Final = ("qemubox-template.service", "qemubox-gc.service")
_PLACES: Final = (
    "/etc/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/usr/local/lib/systemd/system",
)


async def look(host: Host, report: Report) -> None:
    """See the module."""
    if not host.path("/run/systemd/system").is_dir():
        report.ok("systemd", "does not run here: call `qemubox service` at boot, and `qemubox gc` after a power loss")
        return
    there = [
        unit for unit in (*_SERVICES, *_AT_BOOT) if any(host.path(f"{place}/{unit}").exists() for place in _PLACES)
    ]
    if not there:
        report.warning("systemd", "no unit of qemubox's is installed", "run install.sh")
        return
    for unit in there:
        await _unit(host, report, unit)


async def _unit(host: Host, report: Report, unit: str) -> None:
    systemctl = host.which("systemctl")
    if systemctl is None:
        report.warning(unit, "systemd runs, and there is no systemctl in PATH", "look at PATH")
        return
    properties = "--property=ActiveState,SubState,Result,UnitFileState"
    said = await host.run([systemctl, "show", properties, unit])
    state = dict(line.partition("=")[::2] for line in said.out.splitlines())
    active, result = state.get("ActiveState", "unknown"), state.get("Result", "")
    enabled = state.get("UnitFileState", "") in ("enabled", "enabled-runtime", "static", "linked")
    if active == "failed" or result not in ("", "success"):
        report.warning(unit, f"failed: {result}", f"journalctl -u {unit} -n 20, then systemctl restart {unit}")
    elif unit in _SERVICES and active != "active":
        report.warning(unit, f"is {active}", f"systemctl enable --now {unit}")
    elif not enabled:
        report.warning(unit, f"{active}, and not started at boot", f"systemctl enable {unit}")
    else:
        report.ok(unit, f"{active}, and started at boot")
