"""The machine's life after boot: wait for the device, dial the host, serve it until it hangs up."""

import asyncio
import gc
import os

from ttrpc import Server
from vminitd import log, milestones, power
from vminitd.boot import RUN_DIR
from vminitd.capacity import Capacity
from vminitd.console import is_wanted, keep_prompt
from vminitd.containers import Containers
from vminitd.crun import Crun
from vminitd.forward import Forwarder
from vminitd.launch import Machinery
from vminitd.link import find_link
from vminitd.network.network import Network
from vminitd.parked import Prepared
from vminitd.programs import Programs
from vminitd.reaper import Reaper
from vminitd.services.archive import ArchiveService
from vminitd.services.changes import ChangesService
from vminitd.services.containers import ContainersService
from vminitd.services.machine import MachineService
from vminitd.services.network import NetworkService
from vminitd.services.programs import ProgramsService
from vminitd.trace import Traced
from vminitd.uevent import Uevents, kernel_socket


async def serve() -> None:
    """Serves until the host asks for the machine's end or is gone, and powers off: does not return.

    Not by returning, because asyncio.run would wait minutes for a thread that hangs in the kernel.
    """
    try:
        asyncio.get_running_loop().set_exception_handler(_report_from_loop)
        await _serve()
    except BaseException as error:  # noqa: BLE001  PID 1 must not end
        power.off_after(error)
    power.off()


async def _serve() -> None:
    uevents = Uevents(kernel_socket())
    reaper = Reaper()
    link = find_link(uevents)
    capacity = Capacity(uevents)
    network = Network(uevents, capacity)
    machinery = Machinery(uevents, reaper, Crun(reaper, f"{RUN_DIR}/crun"), link.dial, Prepared(), network.there)
    os.makedirs(machinery.directory, mode=0o711, exist_ok=True)
    containers = Containers(machinery)

    async def become_template() -> None:
        from vminitd.warm import warm  # not needed by a machine that has its host already

        await warm(machinery)
        network.rehearse()
        milestones.mark("warm")
        _settle()

    programs = Programs(reaper, link.dial)
    machine = MachineService(capacity, network, containers, programs, become_template)
    forwarding = NetworkService(Forwarder(link.dial))
    calls = ContainersService(containers, machine, capacity, network)
    copying = ArchiveService(containers)
    services = (machine, calls, ChangesService(containers), copying, forwarding, ProgramsService(programs))
    server = Server([Traced(service) for service in services], on_error=_report)
    _settle()
    control = await link.attach(become_template)
    milestones.mark("connected")
    log.info("connected")
    serving = asyncio.create_task(server.serve(control))
    # Kept by its name: the loop alone would not keep it.
    prompt = asyncio.create_task(_prompt(machine, reaper)) if is_wanted() else None
    ended = asyncio.create_task(machine.ended.wait())
    await asyncio.wait([serving, ended], return_when=asyncio.FIRST_COMPLETED)
    # Delivers the answer to Shutdown, if that is why.
    await server.close(0)
    log.info("powering off", reason="asked to" if machine.ended.is_set() else "the host is gone")
    if prompt is not None:
        prompt.cancel()
    await containers.end(0)


async def _prompt(machine: MachineService, reaper: Reaper) -> None:
    """Not in a template: its clones' prompts are processes of their own."""
    await machine.identified.wait()
    await keep_prompt(reaper)


def _settle() -> None:
    """What is there by now stays: not looked through at every collection, nor written to in a template's clones."""
    gc.collect()
    gc.freeze()
    milestones.mark("waiting")


def _report_from_loop(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """What nobody awaited: the machine goes on, as asyncio itself would, but it is said."""
    error = context.get("exception")
    if isinstance(error, BaseException):
        log.failure(str(context.get("message", "")), error)
    else:
        log.error(str(context.get("message", "")))


def _report(where: str, error: BaseException) -> None:
    log.failure(f"unexpected in {where}", error)
