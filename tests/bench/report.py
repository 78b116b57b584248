"""The results in Markdown, for a terminal and for docs/benchmarks.md. Pure."""

from collections.abc import Iterator, Mapping, Sequence

from deploy import phases
from tests.bench.aims import aims
from tests.bench.commands import PYTHON
from tests.bench.figures import growth, median, nearest_rank, ratio
from tests.bench.results import Density, Point, Polls, Results, Runs

# Of a second of one processor.
_MS_PER_PERCENT = 10.0


def markdown(results: Results) -> str:
    """The whole report."""
    parts = [
        _about(results),
        _runs("`ctr run --rm … true`, ms", results.end_to_end_ms, against="runc"),
        _boot(results),
        _phases(results),
        _calls(results),
        _at_once(results),
        _layers(results),
        _runs("The shim binary's jobs, ms", results.commands_ms, against=PYTHON),
        _runs("100 MB of output, MB/s", results.output_mb_s, against="runc"),
        *_network(results),
        *_storage(results),
        _polls(results),
        _density(results),
        _aims(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose columns line up as text too; the first is words, the others figures."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join([first, *others]) + " |"

    rule = "| " + " | ".join(["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]) + " |"
    return "\n".join([line(lines[0]), rule, *(line(each) for each in lines[1:])])


def number(value: float | None) -> str:
    """With three digits that count, at least to the one; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _about(results: Results) -> str:
    lines = [f"{name}: {value}" for name, value in results.about.items()]
    lines += [f"not here: {name} ({reason})" for name, reason in results.absent.items()]
    return "\n".join(f"- {line}" for line in lines)


def _runs(title: str, found: Mapping[str, Runs], *, against: str) -> str:
    if not found:
        return ""
    rows = [
        [
            name,
            number(median(runs)),
            number(nearest_rank(runs, 95)),
            number(min(runs)),
            number(max(runs)),
            str(len(runs)),
            number(ratio(runs, found.get(against, []))),
        ]
        for name, runs in found.items()
    ]
    return f"### {title}\n\n" + table(["", "median", "p95", "min", "max", "runs", f"÷ {against}"], rows)


def _boot(results: Results) -> str:
    if not results.boot_ms:
        return ""
    rows = []
    for name, runs in results.boot_ms.items():
        _, _, memory = name.partition(", ")
        cold = results.boot_ms.get(f"cold, {memory}", [])
        with_wait = number(median(results.boot_and_wait_ms[name]))
        rows.append([name, number(median(runs)), number(nearest_rank(runs, 95)), number(ratio(cold, runs)), with_wait])
    title = "### From QEMU's exec until vminitd has answered, with its disks there, ms\n\n"
    return title + table(["", "median", "p95", "cold ÷ this", "and waiting for Create"], rows)


def _phases(results: Results) -> str:
    parts = []
    for name, marks in results.host_marks_ms.items():
        parts.append(f"#### {name}: from the shim's start to the running process\n\n```\n{phases.table(marks)}\n```")
        guest = results.guest_marks_ms.get(name, {})
        if len(guest) > 1:
            parts.append(f"In the guest:\n\n```\n{phases.table(guest)}\n```")
    return "\n\n".join(parts)


def _calls(results: Results) -> str:
    if not results.calls_ms:
        return ""
    calls = list(next(iter(results.calls_ms.values())))
    runc = results.calls_ms.get("runc", {})
    rows = [
        [
            name,
            *(f"{number(median(found[call]))} ({number(nearest_rank(found[call], 95))})" for call in calls),
            number(ratio(found.get("exec", []), runc.get("exec", []))),
        ]
        for name, found in results.calls_ms.items()
    ]
    return "### Calls on the shim's socket, ms: median (p95)\n\n" + table(["", *calls, "exec ÷ runc"], rows)


def _layers(results: Results) -> str:
    if not results.layers_ms:
        return ""
    counts = sorted({count for found in results.layers_ms.values() for count in found})
    rows = [
        [name, *(number(median(found[count])) for count in counts), number(ratio(found[counts[-1]], found[counts[0]]))]
        for name, found in results.layers_ms.items()
    ]
    head = ["", *(f"{count} layers" if count > 1 else "1 layer" for count in counts), f"{counts[-1]} ÷ {counts[0]}"]
    return "### `ctr run --rm … true` of an image of so many layers, ms: medians\n\n" + table(head, rows)


def _at_once(results: Results) -> str:
    if not results.at_once_ms:
        return ""
    counts = sorted({count for found in results.at_once_ms.values() for count in found})
    rows = [
        [name, *(f"{number(median(found[n]))} ({number(median(found[n]) / n)})" for n in counts)]
        for name, found in results.at_once_ms.items()
    ]
    title = "### `ctr run --rm … true` at once: ms until all have ended (and per container), medians\n\n"
    return title + table(["", *map(str, counts)], rows)


def _network(results: Results) -> Iterator[str]:
    for title, by_way in (
        ("One TCP stream by iperf3, Mbit/s: median (÷ runc)", results.network_mbit_s),
        ("A round trip by ping, µs: median (÷ runc)", results.round_trip_us),
    ):
        if by_way:
            names = dict.fromkeys(name for found in by_way.values() for name in found)
            rows = [[name, *(_beside_runc(found, name) for found in by_way.values())] for name in names]
            yield f"### {title}\n\n" + table(["", *by_way], rows)


def _storage(results: Results) -> Iterator[str]:
    for title, by_what in (
        ("Reads and writes of a file of 256 MiB: median (÷ runc)", results.storage),
        ("Longer work, s: median (÷ runc)", results.work_s),
    ):
        if by_what:
            names = list(next(iter(by_what.values())))
            rows = [[what, *(_beside_runc(found, name) for name in names)] for what, found in by_what.items()]
            yield f"### {title}\n\n" + table(["", *names], rows)


def _beside_runc(found: Mapping[str, Runs], name: str) -> str:
    return f"{number(median(found[name]))} ({number(ratio(found[name], found.get('runc', [])))})"


def _polls(results: Results) -> str:
    if not results.polls:
        return ""
    rows = [[name, *_polls_row(polls)] for name, found in results.polls.items() for polls in found]
    head = ["", "containers", "answer, ms", "p95", "processor ms a poll", "of which QEMU", "shim"]
    head += ["of one processor", "answers a second without a pause"]
    return "### Stats, each container asked once a second\n\n" + table(head, rows)


def _polls_row(polls: Polls) -> list[str]:
    used = polls.processor_ms
    total_ms = sum(used.values())
    return [
        str(polls.containers),
        number(median(polls.answer_ms)),
        number(nearest_rank(polls.answer_ms, 95)),
        number(total_ms),
        number(used.get("QEMU")),
        number(used.get("shim")),
        f"{total_ms * polls.containers / _MS_PER_PERCENT:.1f} %",
        number(polls.per_second),
    ]


def _density(results: Results) -> str:
    if not results.density:
        return ""
    rows = [row for name, density in results.density.items() for row in _memory_rows(name, density)]
    head = ["", "containers", "USS each", "PSS each", "USS beyond the first", "PSS beyond the first"]
    kinds = [row for name, density in results.density.items() for row in _kind_rows(name, density)]
    starts = [_starts_row(name, density) for name, density in results.density.items()]
    return "\n\n".join(
        [
            "### Memory of idle containers, MiB: all processes of each",
            table(head, rows),
            "By process, per container, where there were most:",
            table(["", "process", "USS", "PSS"], kinds),
            "### Starts beside those that run already, ms",
            table(["", "first ten", "last ten", "running at the end", "answered", "why no more"], starts),
        ]
    )


def _memory_rows(name: str, density: Density) -> Iterator[list[str]]:
    first = density.points[0]
    for point in density.points:
        uss, pss = sum(point.uss_mib.values()), sum(point.pss_mib.values())
        count = point.containers - first.containers + 1
        yield [
            name,
            str(point.containers),
            number(uss / point.containers),
            number(pss / point.containers),
            number(growth(sum(first.uss_mib.values()), uss, count)),
            number(growth(sum(first.pss_mib.values()), pss, count)),
        ]


def _kind_rows(name: str, density: Density) -> Iterator[list[str]]:
    last: Point = density.points[-1]
    for kind, uss in last.uss_mib.items():
        yield [name, kind, number(uss / last.containers), number(last.pss_mib[kind] / last.containers)]


def _starts_row(name: str, density: Density) -> list[str]:
    first, last = density.starts_ms[:10], density.starts_ms[-10:]
    there = [str(density.running), str(density.answered), density.stopped or "–"]
    return [name, number(median(first)), number(median(last)), *there]


def _aims(results: Results) -> str:
    rows = [
        [aim.name, number(aim.measured) + (aim.unit if aim.measured is not None else ""), aim.wanted, aim.verdict]
        for aim in aims(results)
    ]
    return "### Aims\n\n" + table(["", "measured", "aim", ""], rows)
