"""All that was measured, as values, and as the JSON that is published: every run, in milliseconds and MiB.

Variants are named as in variants.py; what could not be measured is not there.
"""

import json
from dataclasses import asdict, dataclass, field

Runs = list[float]


@dataclass
class Point:
    """The memory of all processes when so many containers were idle: totals by kind of process."""

    containers: int
    uss_mib: dict[str, float]
    pss_mib: dict[str, float]


@dataclass
class Density:
    """Many containers, started one after the other. `answered` of the last of `points` did an exec."""

    starts_ms: Runs
    points: list[Point]
    answered: int
    running: int
    # Why there were not more.
    stopped: str = ""


@dataclass
class Polls:
    """Stats of so many containers, each asked once a second.

    `processor_ms` are by kind of process, for one question, without what the processes use anyway; `per_second` answers
    had a client that asked one of them without a pause.
    """

    containers: int
    answer_ms: Runs
    processor_ms: dict[str, float]
    per_second: float


@dataclass
class Results:
    """Everything. `absent` says of a variant why it is not there."""

    about: dict[str, str | int | float]
    absent: dict[str, str]
    end_to_end_ms: dict[str, Runs] = field(default_factory=dict)
    # From QEMU's exec until vminitd has answered and has its disks; without and with the time in which the machine
    # stood paused because Create did not know its disks yet.
    boot_ms: dict[str, Runs] = field(default_factory=dict)
    boot_and_wait_ms: dict[str, Runs] = field(default_factory=dict)
    # Medians of the marks since the shim's start, and in the guest.
    host_marks_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    guest_marks_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    # One life on a shim's socket, by call: see calls.py.
    calls_ms: dict[str, dict[str, Runs]] = field(default_factory=dict)
    # By how many at once: until all had ended.
    at_once_ms: dict[str, dict[int, Runs]] = field(default_factory=dict)
    # `ctr run` of an image of so many layers.
    layers_ms: dict[str, dict[int, Runs]] = field(default_factory=dict)
    commands_ms: dict[str, Runs] = field(default_factory=dict)
    # 100 MB of a container's output, see output.py.
    output_mb_s: dict[str, Runs] = field(default_factory=dict)
    # Of one stream, and of a ping, by the way that it goes: see network.py.
    network_mbit_s: dict[str, dict[str, Runs]] = field(default_factory=dict)
    round_trip_us: dict[str, dict[str, Runs]] = field(default_factory=dict)
    # Reads and writes by what was done and where, in the unit that storage.py says; and seconds of longer work.
    storage: dict[str, dict[str, Runs]] = field(default_factory=dict)
    work_s: dict[str, dict[str, Runs]] = field(default_factory=dict)
    # By how many containers there were.
    polls: dict[str, list[Polls]] = field(default_factory=dict)
    density: dict[str, Density] = field(default_factory=dict)

    def json(self) -> str:
        """The document."""
        return json.dumps(asdict(self), indent=1) + "\n"
