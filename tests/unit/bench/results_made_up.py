"""Results as a benchmark might have them, made up so that every ratio is easy to see."""

from tests.bench.aims import MANY
from tests.bench.commands import PYTHON
from tests.bench.results import Density, Point, Polls, Results


def density(first_mib: float, each_mib: float, answered: int = MANY) -> Density:
    """1, 10 and 50 containers, of which each beyond the first takes `each_mib`."""
    points = [
        Point(
            n,
            {"QEMU": first_mib + (n - 1) * each_mib - n, "shim": 0.5 * n},
            {"QEMU": first_mib + (n - 1) * each_mib, "shim": 0.0},
        )
        for n in (1, 10, MANY)
    ]
    return Density(starts_ms=[100.0] * 40 + [150.0] * 10, points=points, answered=answered, running=answered)


def results() -> Results:
    """Everything was measured."""
    marks = {"create": 0.0, "spawned": 10.0, "configured": 110.0, "started": 200.0}
    return Results(
        about={"date": "2026-11-28", "runs of each": 3},
        absent={"clone, kernel": "no such device"},
        end_to_end_ms={"runc": [100, 90, 110], "clone, private": [400, 390, 410], "clone, shared": [500, 490, 990]},
        boot_ms={
            "cold, private": [3000, 2900, 3100],
            "cold, shared": [3200, 3100, 3300],
            "clone, private": [200, 190, 210],
            "clone, shared": [500, 490, 510],
        },
        boot_and_wait_ms={
            "cold, private": [3010],
            "cold, shared": [3210],
            "clone, private": [290],
            "clone, shared": [590],
        },
        host_marks_ms={"clone, private": marks},
        guest_marks_ms={"clone, private": {"waiting": 0.0, "called": 5.0}},
        calls_ms={
            "runc": {"Create": [10, 11, 12], "Start": [1, 2, 3], "exec": [20, 20, 30]},
            "clone, private": {"Create": [100, 110, 120], "Start": [10, 20, 30], "exec": [90, 100, 110]},
        },
        layers_ms={"runc": {1: [100], 100: [110]}, "clone, private": {1: [400, 400], 100: [500, 540]}},
        at_once_ms={"runc": {1: [100], 8: [400]}, "clone, private": {1: [400], 8: [1600]}},
        commands_ms={PYTHON: [8, 8, 8], "-info": [12, 12, 12], "start": [50, 50, 50], "delete": [32, 32, 32]},
        output_mb_s={"runc": [1000, 1000], "clone, private": [40, 60]},
        network_mbit_s={"host → container": {"runc": [9000, 11000], "clone, without vhost-net": [900, 1100]}},
        round_trip_us={"container → container": {"runc": [50, 50], "clone, without vhost-net": [1000, 1500]}},
        polls={
            "runc": [Polls(1, [1.0, 2.0], {"shim": 0.5, "container": 0.0}, 1000)],
            "clone, private": [Polls(50, [5.0, 7.0], {"shim": 1.0, "QEMU": 3.0}, 4000)],
        },
        density={"clone, private": density(40, 30), "clone, shared": density(200, 90, answered=49)},
    )


def nothing() -> Results:
    """Nothing was measured."""
    return Results(about={"date": "2026-11-28"}, absent={})
