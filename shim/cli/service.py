"""`qemubox service`: the parent of shims (shim/warm/), with what it keeps for them."""

import argparse

from shim.config import load
from shim.errors import QemuboxError
from shim.log import Logger
from shim.template.held import refresh
from shim.warm.holdings import Holdings
from shim.warm.service import run as run_service


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM. Raises HostError."""
    return run_service(arguments.link, _hold)


def _hold(held: Holdings, log: Logger) -> None:
    """What the service keeps for its shims. With a configuration that is wrong, nothing: each shim tells of that."""
    try:
        refresh(held, load(), log)
    except QemuboxError as error:
        log.warning("no template's memory is kept", reason=str(error))
