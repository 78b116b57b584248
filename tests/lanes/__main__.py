"""The command line: `python -m tests.lanes [LANE]...`, which ./test.sh calls."""

import argparse
import asyncio
import os
import sys

from tests.lanes.plan import ALL_DEADLINE_S, DEADLINE_S, LANES, Step, plan
from tests.lanes.run import Lanes


def main() -> int:
    """Parse, run; the exit status."""
    parser = argparse.ArgumentParser(
        prog="./test.sh",
        description="Builds what the tests need, runs the lanes, and says of each whether it passed and how long "
        "it took. The output of each is in build/lanes/, too. Which lane does what: docs/testing.md.",
    )
    parser.add_argument("lanes", nargs="*", metavar="LANE", help=f"of {' '.join(LANES)}; all where none is named")
    parser.add_argument("--all", action="store_true", help="the whole matrix of the vm lane: hours; before a release")
    parser.add_argument("--minutes", type=float, metavar="N", help="end all that is not over after N minutes")
    parser.add_argument("--plan", action="store_true", help="only print what would be run")
    arguments = parser.parse_args()
    for name in arguments.lanes:
        if name not in LANES:
            parser.error(f"unknown lane: {name} (there are {', '.join(LANES)})")
    steps = plan(arguments.lanes or LANES, everything=arguments.all)
    if arguments.plan:
        for step in steps:
            print(f"{step.name}: {step.command}")
        return 0
    deadline_s = ALL_DEADLINE_S if arguments.all else DEADLINE_S
    return asyncio.run(_run(steps, arguments.minutes * 60 if arguments.minutes is not None else deadline_s))


async def _run(steps: list[Step], deadline_s: float) -> int:
    return await Lanes(steps, os.cpu_count() or 1).run(deadline_s)


if __name__ == "__main__":
    sys.exit(main())
