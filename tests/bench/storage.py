"""Storage: what a container's programs get from its root file system and from a volume, beside runc on the same disk.

Reads and writes by a program of our own (io.c), as fio does them; `git clone` and `apt-get install` of what the image
has in it, so that neither waits for a network; and the first and second start of an image.
"""

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.box import Box
from tests.bench import density, turns
from tests.bench.place import Place
from tests.bench.results import Results, Runs
from tests.bench.storage_images import APT, APT_COMMAND, CLONE_COMMAND, TOOLS, apt_archive, tools_archive
from tests.bench.variants import Variant

_MIB: Final = 256
_SECONDS: Final = 2
ROOT, VOLUME = "root", "volume"
# What io.c is told, and the unit of what it prints.
JOBS: Final = {
    "write": "MiB/s",
    "read": "MiB/s",
    "random-read": "4 KiB reads/s",
    "random-write": "4 KiB durable writes/s",
}
FIRST: Final = "first start"
SECOND: Final = "second start"
_DEADLINE_S: Final = 300.0
_LONG: Final = ("sleep", "100000")


@dataclass(frozen=True)
class _Running:
    """A container with a volume at /volume."""

    box: Box
    container: str

    def execute(self, *command: str) -> str:
        arguments = ("tasks", "exec", "--exec-id", self.box.new_id(), self.container, *command)
        return self.box.containerd.ctr(*arguments, deadline_s=_DEADLINE_S).checked().text


def measure(place: Place, variants: list[Variant], runs: int, results: Results) -> None:
    """`runs` of each in turn, by runc and by a clone that has its memory to itself unless it has a volume."""
    chosen = {v.name: v for v in variants if not v.is_vm or (v.start, v.memory) == ("clone", "private")}
    images = place.cell.directory / "images"
    images.mkdir(exist_ok=True)
    for archive in (tools_archive(images), apt_archive(images)):
        place.containerd.ctr("images", "import", str(archive), deadline_s=_DEADLINE_S).checked()
    with ExitStack() as stack:
        running = {name: stack.enter_context(_running(place, variant)) for name, variant in chosen.items()}
        for place_, directory in ((ROOT, "/"), (VOLUME, "/volume")):
            for job, unit in JOBS.items():
                results.storage[f"{job}, {place_}, {unit}"] = _io(running, runs, job, directory)
        results.work_s["git clone"] = _clones(running, runs)
    results.work_s["apt-get install"] = _installs(place, chosen, runs)
    for name, found in _starts(place, chosen, runs).items():
        results.work_s[name] = found


@contextmanager
def _running(place: Place, variant: Variant) -> Iterator[_Running]:
    box = place.box(variant)
    volume = place.cell.directory / f"volume-{variant.name.replace(', ', '-')}"
    volume.mkdir()
    mount = f"type=bind,src={volume},dst=/volume,options=rbind:rw"
    with place.configured(variant):
        container = box.start(*_LONG, options=("--null-io", "--mount", mount), image=TOOLS)
        try:
            yield _Running(box, container)
        finally:
            density.end(box, [container])
            shutil.rmtree(volume)


def _io(running: Mapping[str, _Running], runs: int, job: str, directory: str) -> dict[str, Runs]:
    """What io.c prints. Reading finds what writing, which comes first, has left."""

    def figure(name: str, _number: int) -> float:
        path = str(Path(directory, "io.data"))
        return float(running[name].execute("/bin/io", job, path, str(_MIB), str(_SECONDS)))

    return turns.measure([*running], runs, f"{job} in {directory}", figure)


def _clones(running: Mapping[str, _Running], runs: int) -> dict[str, Runs]:
    """Seconds, with the exec. What was cloned is removed afterwards."""

    def clone_s(name: str, _number: int) -> float:
        begin = time.monotonic()
        running[name].execute("/bin/sh", "-c", CLONE_COMMAND)
        took_s = time.monotonic() - begin
        running[name].execute("/bin/rm", "-rf", "/clone")
        return took_s

    return turns.measure([*running], runs, "git clone", clone_s)


def _installs(place: Place, chosen: Mapping[str, Variant], runs: int) -> dict[str, Runs]:
    """Seconds, with the exec, in a new container each."""

    def install_s(name: str, _number: int) -> float:
        box = place.box(chosen[name])
        with place.configured(chosen[name]):
            container = _Running(box, box.start(*_LONG, image=APT))
            try:
                begin = time.monotonic()
                container.execute("/bin/sh", "-c", APT_COMMAND)
                return time.monotonic() - begin
            finally:
                density.end(box, [container.container])

    return turns.measure([*chosen], runs, "apt-get install", install_s)


def _starts(place: Place, chosen: Mapping[str, Variant], runs: int) -> dict[str, dict[str, Runs]]:
    """Seconds of `ctr run --rm … true`, without anything of the image in the layer cache and right afterwards."""

    def both_s(name: str, _number: int) -> tuple[float, float]:
        variant = chosen[name]
        with place.configured(variant):
            if variant.is_vm:
                place.qemubox.command("cache", "prune", "--all").check_returncode()
            return _run_s(place.box(variant)), _run_s(place.box(variant))

    found = turns.measure([*chosen], runs, "starts", both_s)
    return {
        FIRST: {name: [first for first, _ in each] for name, each in found.items()},
        SECOND: {name: [second for _, second in each] for name, each in found.items()},
    }


def _run_s(box: Box) -> float:
    begin = time.monotonic()
    box.run("true", image=APT, deadline_s=_DEADLINE_S).checked()
    return time.monotonic() - begin
