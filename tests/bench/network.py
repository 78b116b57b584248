"""The network: throughput and round trips between the host and a container, and between two containers.

All are on one bridge that CNI's plugin has made, two containers of each variant, which wait while others are measured:
what runs at a time is one stream. iperf3 and ping are the containers' own, and on the host's side the host's.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from harness import cni
from harness.attached import attached
from harness.box import Box
from harness.images import NETWORK
from tests.bench import density, turns
from tests.bench.place import Place
from tests.bench.results import Results, Runs
from tests.bench.variants import Variant

OUT: Final = "host → container"
BACK: Final = "container → host"
ACROSS: Final = "container → container"
VHOST: Final = Path("/dev/vhost-net")

_SECONDS: Final = 2
_PINGS: Final = 200
_DEADLINE_S: Final = 60.0
_SERVER: Final = ("iperf3", "--server")
_AVERAGE: Final = re.compile(r"round-trip min/avg/max = [0-9.]+/([0-9.]+)/")


@dataclass(frozen=True)
class _Pair:
    """Two containers; `address` is the first one's, and the second one asks it."""

    box: Box
    address: str
    second: str

    def on_the_host(self, *command: str) -> str:
        return cni.run(self.box.containerd.cell, *command)

    def in_the_second(self, *command: str) -> str:
        arguments = ("tasks", "exec", "--exec-id", self.box.new_id(), self.second, *command)
        return self.box.containerd.ctr(*arguments, deadline_s=_DEADLINE_S).checked().text


def measure(place: Place, variants: list[Variant], runs: int, results: Results) -> None:
    """`runs` of each in turn: runc, and a clone with its memory to itself, whose frames QEMU or vhost-net carries."""
    chosen = _chosen(variants, results)
    place.containerd.import_image(NETWORK)
    net = cni.bridge(ip6=False)
    with ExitStack() as stack:
        stack.enter_context(cni.configured(place.box(variants[0]), net))
        pairs = {name: stack.enter_context(_pair(place, variant, net)) for name, variant in chosen.items()}
        for way, found in _streams(pairs, runs).items():
            results.network_mbit_s[way] = found
        for way, found in _round_trips(pairs, runs).items():
            results.round_trip_us[way] = found


def _chosen(variants: list[Variant], results: Results) -> dict[str, Variant]:
    """By the names that the report has for them; what cannot be measured here is named there, with why."""
    clones = [variant for variant in variants if (variant.start, variant.memory) == ("clone", "private")]
    chosen = {variant.name: variant for variant in variants if not variant.is_vm}
    for clone in clones:
        chosen["clone, without vhost-net"] = _with(clone, vhost="off")
        if VHOST.exists():
            chosen["clone, with vhost-net"] = _with(clone, vhost="auto")
        else:
            results.absent["clone, with vhost-net"] = f"{VHOST} is not there"
    return chosen


def _with(variant: Variant, *, vhost: str) -> Variant:
    return replace(variant, changes={**variant.changes, "network": {"vhost": vhost}})


@contextmanager
def _pair(place: Place, variant: Variant, net: cni.Net) -> Iterator[_Pair]:
    """Each in a namespace that CNI has connected before: the same for every runtime."""
    box = place.box(variant)
    started: list[str] = []
    with attached(box, net) as first, attached(box, net) as second, place.configured(variant):
        try:
            for where in (first, second):
                options = ("--null-io", *where.options)
                started.append(box.start(*_SERVER, options=options, image=NETWORK))
            yield _Pair(box, first.ip4, started[1])
        finally:
            density.end(box, started)


def _streams(pairs: Mapping[str, _Pair], runs: int) -> dict[str, dict[str, Runs]]:
    """Megabits a second that arrive, of one TCP stream."""

    def mbit_s(pair: _Pair, way: str) -> float:
        command = ("iperf3", "--json", "--time", str(_SECONDS), "--client", pair.address)
        if way == ACROSS:
            said = pair.in_the_second(*command)
        else:
            said = pair.on_the_host(*command, *(("--reverse",) if way == BACK else ()))
        return round(float(json.loads(said)["end"]["sum_received"]["bits_per_second"]) / 1e6, 1)

    return {way: _measure(pairs, runs, f"iperf3, {way}", partial(mbit_s, way=way)) for way in (OUT, BACK, ACROSS)}


def _round_trips(pairs: Mapping[str, _Pair], runs: int) -> dict[str, dict[str, Runs]]:
    """Microseconds, the average of so many pings, each sent when the one before has been answered."""

    def trip_us(pair: _Pair, way: str) -> float:
        command = ("ping", "-A", "-q", "-c", str(_PINGS), pair.address)
        said = pair.on_the_host("busybox", *command) if way == OUT else pair.in_the_second(*command)
        found = _AVERAGE.search(said)
        assert found, f"ping says no average: {said}"
        return round(float(found.group(1)) * 1000, 1)

    return {way: _measure(pairs, runs, f"ping, {way}", partial(trip_us, way=way)) for way in (OUT, ACROSS)}


def _measure(pairs: Mapping[str, _Pair], runs: int, what: str, figure: Callable[[_Pair], float]) -> dict[str, Runs]:
    return turns.measure([*pairs], runs, what, lambda name, _number: figure(pairs[name]))
