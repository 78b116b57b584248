"""All areas, one after the other: each has a deadline, and whatever it raises is a line."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from shim.check import (
    accelerator,
    containerd,
    docker,
    frames,
    guest,
    kernel,
    networks,
    programs,
    qemu,
    rights,
    service,
    space,
    surroundings,
    templates,
    units,
    vsock,
)
from shim.check.host import Host
from shim.check.line import Level, Line, Report
from shim.errors import QemuboxError

_AREA_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Area:
    """What is looked at, by its name; the deadline, to which come as many boots as it may wait for."""

    name: str
    look: Callable[[Host, Report], Awaitable[None]]
    boots: int = 0


RIGHTS: Final = Area("rights", rights.look)
# In the order of the output. Templates come behind the accelerator, which says what machine it is.
AREAS: Final = (
    Area("kernel", kernel.look),
    Area("host", surroundings.look),
    Area("space", space.look),
    Area("qemu", qemu.look),
    Area("guest", guest.look),
    Area("accelerator", accelerator.look, boots=2),
    Area("vsock", vsock.look),
    Area("network", frames.look),
    Area("cni", networks.look),
    Area("programs", programs.look),
    Area("template", templates.look),
    Area("service", service.look),
    Area("systemd", units.look),
    Area("containerd", containerd.look),
    Area("docker", docker.look),
)


async def look_at_all(host: Host, tell: Callable[[Line], None], areas: tuple[Area, ...] = AREAS) -> None:
    """Have each area looked at, and `tell` of its lines when it is done. Without root nothing but that is told."""
    lines = await look_at(host, RIGHTS)
    for line in lines:
        tell(line)
    if any(line.level is Level.FAILURE and line.what == "user" for line in lines):
        return
    for area in areas:
        for line in await look_at(host, area):
            tell(line)


async def look_at(host: Host, area: Area, deadline_s: float = _AREA_S) -> list[Line]:
    """The lines of one area; never raises but for being cancelled."""
    report = Report(area.name)
    limit_s = deadline_s + area.boots * host.config.vm.boot_timeout_s
    with unexpected(report):
        async with asyncio.timeout(limit_s) as limit:
            await area.look(host, report)
        if limit.expired():  # it has swallowed its end
            report.failure(area.name, f"took more than {limit_s:g} s", "call it again; the host is very slow")
    return report.lines


@contextmanager
def unexpected(report: Report) -> Iterator[None]:
    """Whatever is raised in here becomes a failure in one line."""
    try:
        yield
    except TimeoutError as error:
        report.failure(report.area, f"did not end in time{f': {error}' if str(error) else ''}", "call it again")
    except QemuboxError as error:
        report.failure(report.area, error.message, error.hint or "look for it in docs/troubleshooting.md")
    except Exception as error:  # noqa: BLE001 - it is told
        words = f"{type(error).__name__}: {error}"
        report.failure(report.area, f"could not be looked at: {words}", "report it with the output of qemubox check")
