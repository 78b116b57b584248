"""The benchmark's command line, and the order in which things are measured."""

import argparse
import contextlib
import ctypes
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

from harness.flavours import CHECKOUT, FLAVOUR_NAMES
from tests.bench import calls, commands, density, layers, network, output, plot, polls, report, starts, storage
from tests.bench.place import Place, place
from tests.bench.results import Results
from tests.bench.variants import VARIANTS, Variant

_PARTS: Final = ("run", "calls", "at-once", "layers", "commands", "output", "network", "storage", "stats", "density")
_RUNS, _QUICK_RUNS = 20, 5
_PR_SET_CHILD_SUBREAPER: Final = 36


def main() -> None:
    """Do what the command line asks for; an interrupted benchmark says nothing but that."""
    arguments = _parser().parse_args()
    try:
        _run(arguments)
    except KeyboardInterrupt:
        sys.exit("bench: interrupted; what it had started is ended, nothing was written")


def _run(arguments: argparse.Namespace) -> None:
    """Set up a containerd, measure, print, and write it all down."""
    runs = _QUICK_RUNS if arguments.quick else arguments.runs
    points = [count for count in density.POINTS if count <= (10 if arguments.quick else arguments.containers)]
    arguments.out.mkdir(parents=True, exist_ok=True)
    load = round(os.getloadavg()[0], 2)
    with _ends_what_it_starts(), place(arguments.containerd) as here:
        there, absent = here.present(VARIANTS)
        results = Results(about=_about(here, runs, load), absent=absent)
        _measure(here, there, results, runs=runs, points=points, only=arguments.only or [*_PARTS])
    text = report.markdown(results)
    (arguments.out / "results.json").write_text(results.json())
    (arguments.out / "report.md").write_text(text)
    written = plot.draw(results, arguments.out)
    print(f"{text}\nwritten to {arguments.out}: results.json, report.md, {', '.join(path.name for path in written)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="task bench --", description="What qemubox costs, beside runc, in turns.")
    parser.add_argument("--quick", action="store_true", help=f"a short look: {_QUICK_RUNS} runs, 10 containers at most")
    parser.add_argument("--runs", type=_at_least_20, default=_RUNS, help=f"how many of each (default {_RUNS})")
    parser.add_argument(
        "--containers", type=int, default=density.POINTS[-1], help="how many idle ones at most (default 50; 24 GiB)"
    )
    parser.add_argument("--only", choices=_PARTS, action="append", help="only this part; may be given again")
    parser.add_argument("--containerd", choices=FLAVOUR_NAMES, default="2", help="which containerd (default 2)")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "build" / "bench", help="where to write (build/bench)")
    return parser


def _at_least_20(word: str) -> int:
    if not word.isdigit() or int(word) < _RUNS:
        raise argparse.ArgumentTypeError(f"{word}: fewer than {_RUNS} say nothing of a 95th percentile (see --quick)")
    return int(word)


def _measure(
    here: Place, there: list[Variant], results: Results, *, runs: int, points: list[int], only: list[str]
) -> None:
    clones = [variant for variant in there if variant.start == "clone"]
    if "run" in only:
        starts.one_by_one(here, there, runs, results)
    if "calls" in only:
        calls.measure(here, there, runs, results)
    if "at-once" in only:
        starts.at_once(here, there, runs, results)
    if "layers" in only:
        layers.measure(here, there, runs, results)
    if "commands" in only and clones:
        commands.measure(here, clones[0], runs, results)
    if "output" in only:
        output.measure(here, there, runs, results)
    if "network" in only:
        network.measure(here, there, runs, results)
    if "storage" in only:
        storage.measure(here, there, runs, results)
    if "stats" in only:
        # As many at most as there are idle ones for density; a quarter of the time where 5 runs are enough.
        counts = [min(count, points[-1]) for count in polls.POINTS]
        seconds = polls.SECONDS if runs >= _RUNS else polls.SECONDS // 4
        for variant in there:
            if variant.start != "cold":
                results.polls[variant.name] = polls.measure(here, variant, counts, seconds)
    if "density" in only:
        for variant in there:
            if variant.start != "cold":
                results.density[variant.name] = density.measure(here, variant, points)


def _about(here: Place, runs: int, load: float) -> dict[str, str | int | float]:
    """What the figures depend on, beside the code."""
    memory_gib = round(psutil.virtual_memory().total / (1 << 30), 1)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": _words("git", "-C", str(CHECKOUT), "describe", "--always", "--dirty"),
        "runs of each": runs,
        "processors": f"{os.cpu_count()} × {_processor()}",
        "memory, GiB": memory_gib,
        "load before": load,
        "kernel": platform.release(),
        "accelerator": here.accelerator(),
        "QEMU": _words("qemu-system-x86_64", "--version"),
        "runc": _words("runc", "--version"),
        "containerd": _words(str(here.containerd.flavour.containerd), "--version"),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


def _words(*command: str) -> str:
    """The first line that a command prints."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    return (done.stdout or done.stderr).strip().partition("\n")[0]


@contextlib.contextmanager
def _ends_what_it_starts() -> Iterator[None]:
    """Every descendant is killed at the end, however that comes: also shims, which leave their parents.

    They become this process's children (prctl(2), PR_SET_CHILD_SUBREAPER). What is in the cell its warden ends.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    # By an exception, so that everything is taken down; ^C too where it was ignored, as by `&` in a script.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        while left := psutil.Process().children(recursive=True):
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=10)
