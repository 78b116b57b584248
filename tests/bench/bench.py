"""How long `ctr run --rm … true` takes with runc and with qemubox, in turns, on this machine.

One run of each after the other, so that whatever else the machine does hits both alike;
the first of each is not counted. Median and 95th percentile (nearest rank), the phases
of qemubox from its own timeline, all as a table and as JSON. Numbers of different
machines or different hours say nothing about each other.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "tests" / "vm")]

from deploy import phases  # noqa: E402
from harness.box import RUNTIMES, Box  # noqa: E402
from harness.cell import Cell  # noqa: E402
from harness.containerd import Containerd  # noqa: E402
from harness.flavours import FLAVOUR_NAMES, flavour  # noqa: E402
from harness.images import BUSYBOX  # noqa: E402
from harness.qemubox import Qemubox  # noqa: E402

_TIMELINE = "/run/qemubox/timeline.jsonl"
Marks = dict[str, float]


class Measured:
    """What was measured of one runtime."""

    def __init__(self) -> None:
        self.runs_ms: list[float] = []
        self.phases: list[dict[str, Marks]] = []

    def summary(self) -> dict[str, float]:
        """Median, 95th percentile and extremes in milliseconds."""
        ordered = sorted(self.runs_ms)
        return {
            "median_ms": round(statistics.median(ordered), 1),
            "p95_ms": round(ordered[math.ceil(0.95 * len(ordered)) - 1], 1),
            "min_ms": round(ordered[0], 1),
            "max_ms": round(ordered[-1], 1),
        }

    def median_marks(self, kind: str) -> Marks:
        """The median instant of each mark of that kind, "phases" or "guest", over the runs that have it."""
        names = max((run[kind] for run in self.phases), key=len, default={})
        found = {name: [run[kind][name] for run in self.phases if name in run[kind]] for name in names}
        return {name: round(statistics.median(instants), 1) for name, instants in found.items()}


def measure(boxes: Sequence[Box], runs: int) -> dict[str, Measured]:
    """Run each box in turn, `runs` times and once before."""
    measured = {box.runtime: Measured() for box in boxes}
    for number in range(runs + 1):
        for box in boxes:
            container = f"bench-{box.runtime}-{number}"
            begin = time.perf_counter()
            box.run("true", container=container).checked()
            took_ms = (time.perf_counter() - begin) * 1000
            if number == 0:
                continue
            measured[box.runtime].runs_ms.append(round(took_ms, 1))
            if box.is_vm:
                timeline = box.containerd.cell.path(_TIMELINE)
                found = phases.find(timeline, "default", container)
                found["guest"] = phases.own(found["phases"], found["guest"])
                measured[box.runtime].phases.append(found)
    return measured


def report(measured: dict[str, Measured], about: dict[str, object]) -> dict[str, object]:
    """Everything as one JSON document."""
    runtimes: dict[str, object] = {}
    for runtime, found in measured.items():
        document: dict[str, object] = {**found.summary(), "runs_ms": found.runs_ms}
        if found.phases:
            document["phases_ms"] = found.median_marks("phases")
            document["guest_ms"] = found.median_marks("guest")
        runtimes[runtime] = document
    return {**about, "runtimes": runtimes}


def show(measured: dict[str, Measured], about: dict[str, object]) -> None:
    """The same as a table."""
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print(f"{'ctr run --rm … true':20}  {'median':>9}  {'p95':>9}  {'min':>9}  {'max':>9}")
    for runtime, found in measured.items():
        columns = "  ".join(f"{value:>6.0f} ms" for value in found.summary().values())
        print(f"{runtime:20}  {columns}")
    for runtime, found in measured.items():
        if found.phases:
            print(f"\n{runtime}, medians from Create to the running process:")
            print(phases.table(found.median_marks("phases")))
            print(f"\n{runtime}, medians in the guest, since its kernel started or its template was ready:")
            print(phases.table(found.median_marks("guest")))


def main() -> None:
    """Set up a containerd, measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description="Start times of runc and qemubox, in turns.")
    parser.add_argument("--runs", type=int, default=10, help="how many of each; at least 10 (default 10)")
    parser.add_argument("--containerd", choices=FLAVOUR_NAMES, default="1.6", help="which containerd (default 1.6)")
    parser.add_argument("--json", type=Path, default=CHECKOUT / "build" / "bench.json", help="where to write the JSON")
    arguments = parser.parse_args()
    if arguments.runs < 10:
        parser.error(f"--runs {arguments.runs}: fewer than 10 say nothing")
    load = round(os.getloadavg()[0], 2)
    directory = Path(tempfile.mkdtemp(prefix="qemubox-bench-", dir="/var/tmp"))
    directory.chmod(0o711)
    try:
        with Cell(directory) as cell:
            qemubox = Qemubox(directory)
            qemubox.install()
            containerd = Containerd(flavour(arguments.containerd), cell, qemubox, directory)
            containerd.service.start()
            containerd.start()
            containerd.import_image(BUSYBOX)
            measured = measure([Box(containerd, runtime) for runtime in RUNTIMES], arguments.runs)
    finally:
        shutil.rmtree(directory)
    about = {
        "containerd": arguments.containerd,
        "runs": arguments.runs,
        "cpus": os.cpu_count(),
        "load": load,
        "host_kernel": os.uname().release,
    }
    document = report(measured, about)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    show(measured, about)
    print(f"\n{json.dumps(document)}\n\nwritten to {arguments.json}")


if __name__ == "__main__":
    main()
