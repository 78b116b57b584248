"""The daemon: what `start` leaves running, and what containerd talks to until Shutdown.

It holds all state of its container itself, so containerd may restart or be upgraded.
It ends in one of three ways: Shutdown with nothing left to serve; SIGTERM or SIGINT,
which take the container with them; or a kill, after which `delete` cleans up.
"""

import asyncio
import os
import signal
import socket
from pathlib import Path
from typing import Final

from shim import annotations, deadlines, log_level
from shim.admin import AdminService
from shim.anchor import Anchors
from shim.anchor_process import Source
from shim.annotations import Wishes
from shim.config import load
from shim.copy import address
from shim.copy.transfer import services as copy_services
from shim.events import Publisher
from shim.host import bounds
from shim.identity import Identity
from shim.log import Logger, open_log
from shim.reclaim import reclaim
from shim.task.create import Creator
from shim.task.service import TaskService
from shim.tracing import tracer as tracing
from shim.tracing.server import TracedService
from shim.tracing.tracer import Tracer
from shim.volumes.expected import expected
from ttrpc import Server
from ttrpc.service import Service

# One set of handlers under both names: the messages are the same (contract 1.6).
_ALIASES: Final = {"containerd.task.v2.Task": "containerd.task.v3.Task"}


def run(
    identity: Identity,
    directory: Path,
    listener: socket.socket,
    lock_fd: int,
    source: Source,
    *,
    containerd_level: str,
    why: str,
) -> int:
    """Serve until the end; the answer is the exit status. `lock_fd` is held until the process is gone.

    `source` makes anchors; `containerd_level` is how much containerd says (shim/log_level.py);
    `why` says why this is no fork of the service, empty where it is one.
    """
    bundle = Path.cwd()
    wishes = annotations.read(load(), bundle)
    volumes = expected(bundle)
    level = log_level.in_force(wishes.owner.log.level, containerd_level)
    log = open_log(
        bundle / "log",
        level=level,
        namespace=identity.namespace,
        container_id=identity.container_id,
    )
    tracer = tracing.begin(os.environ, identity, log)
    if why:
        log.info("not forked from the service, which is slower", reason=why)
    try:
        shown = address.Address(identity.namespace, identity.container_id, str(bundle), listener.getsockname())
        address.write(directory, shown)
    except OSError as error:  # a full tmpfs must not stop a container
        log.warning("nothing can be copied by qemubox cp", error=str(error))
    # The bundle is removed under a living shim; a working directory there would keep it.
    os.chdir("/")
    try:
        asyncio.run(_serve(wishes, identity, directory, listener, source, level, tracer, log, volumes=volumes))
    except Exception:
        log.exception("the shim failed")
        return 1
    finally:
        source.end()
        _release_directory(directory, log)
        if tracer is not None:
            tracer.close()
    return 0


async def _serve(
    wishes: Wishes,
    identity: Identity,
    directory: Path,
    listener: socket.socket,
    source: Source,
    level: str,
    tracer: Tracer | None,
    log: Logger,
    *,
    volumes: bool,
) -> None:
    stopped = asyncio.Event()
    events = Publisher(os.environ.get("TTRPC_ADDRESS", ""), identity.namespace, log)
    creator = Creator(
        wishes,
        identity,
        directory,
        bounds=bounds(wishes.config),
        anchors=Anchors(source),
        events=events,
        guest_log_level=level,
        log=log,
    )
    creator.prepare(volumes=volumes)
    accepting: asyncio.Task[None] | None = None

    async def stop() -> None:
        # In this order: nobody new may connect to a shim that is about to end (trap 4), containerd has heard of
        # everything (trap 7), then the answer to Shutdown goes out and the daemon ends.
        Path(listener.getsockname()).unlink(missing_ok=True)
        if accepting is not None:
            accepting.cancel()  # which closes the listener
            await asyncio.wait([accepting])
        await events.close()
        stopped.set()

    tasks = TaskService(creator, shim_pid=os.getpid(), stop=stop, log=log)
    service: Service = tasks if tracer is None else TracedService(tasks, tracer)
    # Standard error is /dev/null: what nobody else catches must go into the log.
    server = Server(
        [service, *copy_services(tasks.containers, log), AdminService(tasks.containers, log)],
        aliases=_ALIASES,
        on_error=lambda where, error: log.error("ttrpc", where=where, error=str(error)),
    )
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(
        lambda _loop, context: log.error(
            "unhandled", what=context.get("message"), error=repr(context.get("exception", ""))
        )
    )
    terminated = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, terminated.set)
    accepting = asyncio.create_task(server.serve_listener(listener), name="accept")
    ends = [asyncio.create_task(event.wait()) for event in (stopped, terminated)]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    # It ends now; another signal, for which the loop has a handler no more in a moment, must not stop the clean-up.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    for end in ends:
        end.cancel()
    if terminated.is_set():
        log.warning("the shim was told to end by a signal")
    await server.close(deadlines.SERVER_CLOSE_S)
    await creator.close()


def _release_directory(directory: Path, log: Logger) -> None:
    """Play the journal: in good order nothing is left but the directory. The last act of the process."""
    for problem in reclaim(directory, warn=lambda problem: log.warning("a hook failed", error=problem)):
        log.error("not removed", what=problem)
