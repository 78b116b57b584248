"""`qemubox qmp`: one command of QEMU's, by the connection that the machine's shim has, and its answer."""

import argparse
import asyncio
import json
import sys
from pathlib import Path

from api import admin_pb2
from api.admin_ttrpc import AdminStub
from shim import deadlines, untrusted
from shim.config import load
from shim.copy.address import Address, locate
from shim.copy.connection import connection
from shim.errors import GuestError, SpecError
from ttrpc import StatusError


def run(arguments: argparse.Namespace) -> int:
    """Ask, and print what comes. Raises what is wrong, of shim/errors.py."""
    if arguments.arguments:
        try:
            json.loads(arguments.arguments)
        except ValueError as error:
            raise SpecError(f"{arguments.arguments!r} is not JSON: {error}", hint='such as \'{"path": "/"}\'') from None
    shim = locate(Path(load().runtime.state_dir), arguments.id, arguments.namespace)
    answer = asyncio.run(ask(shim.address, arguments.command, arguments.arguments, force=arguments.force))
    json.dump(json.loads(answer), sys.stdout, indent=1, ensure_ascii=True)
    print()
    return 0


async def ask(address: Address, command: str, arguments: str = "", *, force: bool = False) -> str:
    """The answer, as JSON. Raises what is wrong, of shim/errors.py."""
    request = admin_pb2.QmpRequest(container_id=address.id, command=command, arguments=arguments, force=force)
    try:
        async with connection(address.socket) as client:
            timeout_s = deadlines.QEMU_COMMAND_S + deadlines.DIAL_S
            return (await AdminStub(client).Qmp(request, timeout_s=timeout_s)).result
    except StatusError as error:
        raise GuestError(error.code, untrusted.plain(error.message)) from error
