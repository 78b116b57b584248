"""Shows where the start time of a virtual machine went, from the shim's timeline.

The shim appends one JSON line per machine to `timeline.jsonl` in its runtime directory
(shim/timelines.py): milliseconds since the shim ran, by phase, the guest's among the host's, and
what the guest itself measured since its kernel started. Used by `install.sh --demo` and the benchmark.

Only the standard library: it runs with the system's Python.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

_BAR_WIDTH = 40


def find(path: Path, namespace: str, container: str) -> dict[str, dict[str, float]]:
    """The last timeline of that container: "phases" and "guest", milliseconds by name.

    Raises LookupError when there is none.
    """
    if path.exists():
        for line in reversed(path.read_text().splitlines()):
            record = json.loads(line)
            if (record["namespace"], record["id"]) == (namespace, container):
                return {"phases": record["phases"], "guest": record["guest"]}
    raise LookupError(f"{path} has no line for {namespace}/{container}")


def own(host: Mapping[str, float], guest: Mapping[str, float]) -> dict[str, float]:
    """The guest's marks that belong to this start.

    A clone ("restored" is among the host's phases) brings those of its template along: then only what comes after
    "waiting" counts, from there.
    """
    if "restored" not in host or "waiting" not in guest:
        return dict(guest)
    origin = guest["waiting"]
    return {name: round(at - origin, 1) for name, at in guest.items() if at >= origin}


def durations(marks: Mapping[str, float]) -> dict[str, float]:
    """How long it took from the mark before to each mark, given the instants since 0 in the order they were reached."""
    spans: dict[str, float] = {}
    before = 0.0
    for name, at in marks.items():
        if at > 0:  # the first mark of the host's is the origin itself
            spans[name] = round(at - before, 1)
        before = at
    return spans


def table(marks: Mapping[str, float]) -> str:
    """One line per phase: how long it took, when it was over, and a bar."""
    spans = durations(marks)
    longest = max(spans.values(), default=0.0) or 1.0
    width = max(len(name) for name in marks)
    lines = [f"  {'phase':{width}}  {'took':>9}  {'reached at':>10}"]
    for name, took in spans.items():
        bar = "#" * round(took / longest * _BAR_WIDTH)
        lines.append(f"  {name:{width}}  {took:>6.1f} ms  {marks[name]:>7.1f} ms  {bar}".rstrip())
    return "\n".join(lines)


def main() -> None:
    """`phases.py TIMELINE NAMESPACE CONTAINER`: print both tables."""
    path, namespace, container = sys.argv[1:]
    try:
        found = find(Path(path), namespace, container)
    except LookupError as error:
        sys.exit(str(error))
    print("host, from the shim's start to the running process:")
    print(table(found["phases"]))
    guest = own(found["phases"], found["guest"])
    if len(guest) > 1:
        print(f"guest, since {'its kernel started' if guest == found['guest'] else 'its template was ready'}:")
        print(table(guest))


if __name__ == "__main__":
    main()
