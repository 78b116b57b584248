"""The template: whether there is one, and whether it fits the machine that a container gets now."""

from typing import Final

from shim import hypervisor
from shim.check.accelerator import quiet_log
from shim.check.host import Host
from shim.check.line import Report
from shim.errors import NotFoundError, QemuboxError, TemplateError
from shim.host import bounds
from shim.template.choice import open_store
from shim.template.store import name_of
from shim.vm.machine import Machine

_BUILD: Final = "qemubox template build"


async def look(host: Host, report: Report) -> None:
    """See the module."""
    mode = host.config.template.mode
    what = f'template.mode = "{mode}"'
    if mode == "off":
        report.ok(what, "machines boot")
        return
    machines = await _machines(host)
    if not machines:
        report.warning(what, "not looked at: no machine can be made, as said above", _BUILD)
        return
    if mode == "per-namespace":
        _each_namespace(host, report, what, machines)
        return
    for machine in machines:
        try:
            template = open_store(host.config).open(name_of(machine.fingerprint()))
        except NotFoundError:
            continue
        except TemplateError as error:
            report.warning("template", f"{error.message}: machines boot", f"{_BUILD} --again")
            return
        template.close()
        metadata = template.metadata
        report.ok("template", f"{metadata.fingerprint[:12]}, made with QEMU {metadata.qemu_version}, fits")
        return
    others = len(open_store(host.config).entries())
    words = f"{others} of other machines, and none of this one" if others else "none"
    report.warning("template", f"{words}: machines boot, which takes longer", _BUILD)


async def _machines(host: Host) -> list[Machine]:
    """The machine that was chosen; where nothing was tried, those of both accelerators, as far as they can be."""
    if host.hypervisor is not None:
        return [host.hypervisor.machine]
    if not host.quick:
        return []
    directory, journal = host.place()
    found = []
    for accel in ("kvm", "tcg"):
        # What is asked for by name is not tried.
        config = host.config._replace(vm=host.config.vm._replace(accel=accel))
        try:
            chosen = await hypervisor.choose(config, directory, bounds(config), journal, quiet_log())
            chosen.machine.fingerprint()
        except QemuboxError:  # told by other areas: no such user, no QEMU, no kernel, no TCG allowed
            continue
        found.append(chosen.machine)
    return found


def _each_namespace(host: Host, report: Report, what: str, machines: list[Machine]) -> None:
    fitting = {machine.fingerprint() for machine in machines}
    names = [
        entry.metadata.namespace
        for entry in open_store(host.config).entries()
        if entry.metadata and entry.metadata.fingerprint in fitting and entry.metadata.namespace
    ]
    if names:
        report.ok(what, f"templates of the namespaces {', '.join(sorted(names))}; others boot")
    else:
        report.warning(what, "no namespace has one: machines boot", f"{_BUILD} --namespace NAMESPACE")
