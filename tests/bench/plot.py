"""The results as pictures, each as PNG and as SVG."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deploy import phases
from tests.bench import report
from tests.bench.figures import median, nearest_rank
from tests.bench.results import Results, Runs

# Told apart in grey and by most colour-blind eyes: Okabe and Ito's.
_COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
_SIZE_INCHES: Final = (8.0, 4.5)
_DPI: Final = 150


def draw(results: Results, directory: Path) -> list[Path]:
    """Draw what there are results for; the files that were written."""
    # The same results give the same bytes.
    matplotlib.rcParams["svg.hashsalt"] = "qemubox"
    written = []
    for name, figure in _figures(results):
        for kind in ("png", "svg"):
            path = directory / f"{name}.{kind}"
            metadata = {"Date": None} if kind == "svg" else {"Software": None}
            figure.savefig(path, dpi=_DPI, metadata=metadata)
            written.append(path)
    return written


def _figures(results: Results) -> Iterator[tuple[str, Figure]]:
    if results.end_to_end_ms:
        yield "ctr-run", _spread("ctr run --rm … true", results.end_to_end_ms)
    if results.boot_ms:
        yield "machine", _spread("From QEMU's exec until vminitd has answered", results.boot_ms)
    if results.host_marks_ms:
        yield "phases", _phases(results)
    if results.calls_ms:
        yield "calls", _calls(results)
    if results.at_once_ms:
        yield "at-once", _at_once(results)
    if results.output_mb_s:
        yield "output", _spread("100 MB through standard output", results.output_mb_s, unit="megabytes a second")
    for way, found in results.network_mbit_s.items():
        yield _file_name("stream", way), _spread(f"One TCP stream, {way}", found, unit="megabits a second")
    for way, found in results.round_trip_us.items():
        yield _file_name("ping", way), _spread(f"A round trip, {way}", found, unit="microseconds")
    if results.polls:
        yield "stats", _polls(results)
    if results.density:
        yield "memory", _memory(results)
        yield "starts", _starts(results)


def _file_name(what: str, way: str) -> str:
    return "-".join((what, *way.replace("→", "to").split()))


def _axes(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _spread(title: str, found: dict[str, Runs], unit: str = "milliseconds") -> Figure:
    """Every run a dot, the median a bar's end, the 95th percentile a stroke."""
    figure, axes = _axes(title, unit, "")
    for row, runs in enumerate(found.values()):
        colour = _COLOURS[row % len(_COLOURS)]
        axes.barh(row, median(runs), color=colour, alpha=0.35)
        axes.plot(runs, [row] * len(runs), "o", color=colour, markersize=3)
        axes.plot([nearest_rank(runs, 95)], [row], "|", color="black", markersize=18)
        axes.annotate(f" {report.number(median(runs))}", (median(runs), row - 0.3), va="center", fontsize=9)
    _name_rows(axes, [*found])
    axes.set_xlim(left=0)
    return figure


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()


def _phases(results: Results) -> Figure:
    figure, axes = _axes("Where a start's time goes, from the shim's start to the running process", "milliseconds", "")
    names = list(dict.fromkeys(name for marks in results.host_marks_ms.values() for name in phases.durations(marks)))
    for row, marks in enumerate(results.host_marks_ms.values()):
        left = 0.0
        for name, took in phases.durations(marks).items():
            colour = _COLOURS[names.index(name) % len(_COLOURS)]
            label = name if row == _first_with(results, name) else None
            hatch = "//" if names.index(name) >= len(_COLOURS) else None
            axes.barh(row, took, left=left, color=colour, label=label, hatch=hatch)
            left += took
    _name_rows(axes, [*results.host_marks_ms])
    figure.legend(loc="outside lower center", fontsize=8, ncols=6)
    return figure


def _first_with(results: Results, name: str) -> int:
    """The first variant that has that phase: it is in the legend once."""
    return next(row for row, marks in enumerate(results.host_marks_ms.values()) if name in marks)


def _calls(results: Results) -> Figure:
    figure, axes = _axes("Calls on the shim's socket, medians", "", "milliseconds")
    width = 0.8 / len(results.calls_ms)
    for row, (name, found) in enumerate(results.calls_ms.items()):
        at = [call + row * width for call in range(len(found))]
        axes.bar(at, [median(runs) for runs in found.values()], width, color=_COLOURS[row % len(_COLOURS)], label=name)
        axes.set_xticks([call + 0.4 - width / 2 for call in range(len(found))], [*found])
    axes.set_yscale("log")
    axes.legend(fontsize=8)
    return figure


def _at_once(results: Results) -> Figure:
    figure, axes = _axes("ctr run --rm … true at once, until all have ended, medians", "how many", "milliseconds")
    for row, (name, found) in enumerate(results.at_once_ms.items()):
        counts = sorted(found)
        axes.plot(counts, [median(found[n]) for n in counts], "o-", color=_COLOURS[row % len(_COLOURS)], label=name)
        axes.set_xticks(counts)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    return figure


def _polls(results: Results) -> Figure:
    """What one answer costs, by kind of process, for each number of containers."""
    figure, axes = _axes("Stats, each container asked once a second: the processor's time for one answer", "", "ms")
    columns = [(name, polls) for name, found in results.polls.items() for polls in found]
    kinds = sorted({kind for _, polls in columns for kind in polls.processor_ms})
    bottoms = [0.0] * len(columns)
    for number, kind in enumerate(kinds):
        heights = [max(0.0, polls.processor_ms.get(kind, 0.0)) for _, polls in columns]
        axes.bar(range(len(columns)), heights, bottom=bottoms, color=_COLOURS[number % len(_COLOURS)], label=kind)
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    axes.set_xticks(range(len(columns)), [f"{name}\n{polls.containers}" for name, polls in columns], fontsize=8)
    axes.legend(fontsize=8)
    return figure


def _memory(results: Results) -> Figure:
    figure, axes = _axes("Memory of idle containers: PSS per container, by process", "containers", "MiB")
    columns = [(name, point) for name, density in results.density.items() for point in density.points]
    kinds = sorted({kind for _, point in columns for kind in point.pss_mib})
    bottoms = [0.0] * len(columns)
    for number, kind in enumerate(kinds):
        heights = [point.pss_mib.get(kind, 0.0) / point.containers for _, point in columns]
        axes.bar(range(len(columns)), heights, bottom=bottoms, color=_COLOURS[number % len(_COLOURS)], label=kind)
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    axes.set_xticks(range(len(columns)), [f"{name}\n{point.containers}" for name, point in columns], fontsize=8)
    axes.legend(fontsize=8)
    return figure


def _starts(results: Results) -> Figure:
    title = "ctr run -d beside those that run already"
    figure, axes = _axes(title, "containers that run", "milliseconds")
    for row, (name, density) in enumerate(results.density.items()):
        at = range(len(density.starts_ms))
        axes.plot(at, density.starts_ms, ".-", color=_COLOURS[row % len(_COLOURS)], linewidth=0.8, label=name)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    return figure
