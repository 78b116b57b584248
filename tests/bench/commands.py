"""What each job of qemubox's shim binary takes, beside an interpreter that does nothing at all.

containerd runs `start` and `delete` for every container, so an interpreter's start is paid
twice; what is on top of that is ours.
"""

import asyncio
from typing import Final

from tests.bench import turns
from tests.bench.bundle import Bundle, bundle
from tests.bench.place import Place
from tests.bench.results import Results
from tests.bench.shim import ShimBinary, connect
from tests.bench.variants import Variant

PYTHON: Final = "python3 -IS -c pass"
COMMANDS: Final = ("-info", "start", "delete")


def measure(place: Place, variant: Variant, runs: int, results: Results) -> None:
    """Each `runs` times in turn; `delete` is that after a shim has gone in good order, as it mostly is."""

    def run(_name: str, _number: int) -> dict[str, float]:
        with place.configured(variant), bundle(place, place.box(variant).new_id(), ["true"]) as made:
            return _all(place, ShimBinary(place, variant, made), made)

    found = turns.measure([variant.name], runs, "commands of the shim", run)[variant.name]
    for name in (PYTHON, *COMMANDS):
        results.commands_ms[name] = [each[name] for each in found]


def _all(place: Place, binary: ShimBinary, made: Bundle) -> dict[str, float]:
    took = {PYTHON: binary.run("/usr/bin/python3", "-IS", "-c", "pass").took_ms, "-info": binary.info().took_ms}
    started = binary.start()
    took["start"] = started.took_ms
    try:
        asyncio.run(_shut_down(place, started.stdout, made))
    finally:
        took["delete"] = binary.delete().took_ms
    return took


async def _shut_down(place: Place, answer: bytes, made: Bundle) -> None:
    task = await connect(place, answer, made.container_id)
    try:
        await task.shutdown()
    finally:
        await task.close()
