"""`qemubox commit`, from its command line to its exit status."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path
from typing import Final

from shim.commit.commit import Wish, commit
from shim.commit.reference import full_name
from shim.containerd.client import Client

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(arguments: argparse.Namespace) -> int:
    """Make the image; on standard output its name and the digest of its manifest. Raises QemuboxError."""
    wish = Wish(
        container=arguments.container,
        name=full_name(arguments.image),
        author=arguments.author,
        message=arguments.message,
        changes=tuple(arguments.change),
        pause=arguments.pause,
        compressed=arguments.compressed,
    )
    return asyncio.run(_run(wish, Path(arguments.address), arguments.namespace))


async def _run(wish: Wish, address: Path, namespace: str) -> int:
    """The first signal ends the commit, and the container is resumed; further ones change nothing about that."""
    loop = asyncio.get_running_loop()
    received: list[int] = []
    working = asyncio.ensure_future(_commit(wish, address, namespace))
    for number in _SIGNALS:
        loop.add_signal_handler(number, _stop, working, received, number)
    try:
        await asyncio.wait([working])
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
    if working.cancelled():
        name = signal.Signals(received[0]).name
        print(f"qemubox: commit of {wish.container} was interrupted by {name}", file=sys.stderr)
        return 128 + received[0]
    print(working.result())
    return 0


def _stop(working: "asyncio.Future[str]", received: list[int], number: int) -> None:
    if not received:
        working.cancel()
    received.append(number)


async def _commit(wish: Wish, address: Path, namespace: str) -> str:
    left_out: list[str] = []
    async with Client(address, namespace) as client:
        target = await commit(client, wish, left_out.append)
    if left_out:
        said = f"{len(left_out)} sockets, which no layer can hold: /{left_out[0]}{', …' if len(left_out) > 1 else ''}"
        print(f"qemubox: left out {said}", file=sys.stderr)
    return f"{wish.name} {target.digest}"
