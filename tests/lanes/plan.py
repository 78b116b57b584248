"""What there is to do: the lanes, what has to be built before each, and how much of the machine each takes. Pure.

The order is that in which steps get a processor: what others wait for comes first. A step's `cores` say what it keeps
busy. One more than the machine has are given away, since what is fetched from a network waits for it in between. The
unit and vm lanes have a worker for each processor, and two of these at once would only both take longer; the kvm lane
keeps one busy, whatever there are, and goes on beside them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

LANES: Final = ("check", "unit", "vm", "kvm")
# How many seconds all of it may take: one hour is the aim with nothing cached (docs/testing.md), and what is late is
# better seen to pass than ended.
DEADLINE_S: Final = 85 * 60.0
ALL_DEADLINE_S: Final = 240 * 60.0
_BUILD_S: Final = 45 * 60.0
_PYTHON: Final = ".venv/bin/python"
_PYTEST: Final = f"{_PYTHON} -m pytest"
_SHARED: Final = f"{_PYTEST} -n logical --no-loadscope-reorder --durations=15 -p tests.lanes.by_file"


@dataclass(frozen=True)
class Step:
    """A shell's command. `cores` 0 means all there are; `after` names the steps that must have succeeded."""

    name: str
    command: str
    cores: int = 1
    deadline_s: float = _BUILD_S
    after: tuple[str, ...] = ()

    @property
    def is_lane(self) -> bool:
        """Whether it tests something, or only builds what is tested."""
        return self.name in LANES


_KVM_MACHINES: Final = ("bookworm host", "trixie bare")

_BUILDS: Final = (
    Step("kernel", "sh kernel/build.sh", cores=0),
    Step("containerd", "sh tests/parts.sh containerd"),
    Step("plugins", "sh tests/parts.sh plugins"),
    Step("image", "sh initrd/build.sh"),
    Step("vsock", "sh deploy/vhost-device-vsock.sh"),
    Step("distros", "sh tests/distro.sh bookworm && sh tests/distro.sh trixie"),
    Step("big-guest", "sh deploy/big-guest/build.sh"),
    Step("runtime", "sh deploy/release/runtime.sh"),
    # And the one that the kvm lane upgrades from (tests/kvm/harness/data.py).
    Step(
        "release",
        "sh deploy/release/build.sh && sh deploy/release/build.sh --version 0.0.9",
        after=("kernel", "image", "vsock", "containerd", "plugins", "runtime"),
    ),
    Step("machines", " && ".join(f"sh tests/kvm/machine.sh {kind}" for kind in _KVM_MACHINES)),
)
# All on each containerd, and as many repetitions as docs/specification.md speaks of.
_MATRIX: Final = (
    "--matrix --distros --in-a-row 50 --clones 50 --moments 15 --image-kills 10 --network-runs 50 --network-at-once 8"
    " --state-machine 60"
)
_CHECK: Final = f"{_PYTHON} -m ruff check . && {_PYTHON} -m ruff format --check . && {_PYTHON} -m mypy ."
_MACHINE: Final = ("kernel", "image", "vsock", "containerd", "plugins")
# The suites of the kvm lane that are run before a release: each takes a machine of its own, and some minutes.
_FURTHER_SUITES: Final = ("tests/kvm/test_bookworm_upgrade.py", "tests/kvm/test_trixie_host.py")


def _again(shared: str, tests: str, alone: str, words: str) -> str:
    """Tests, and once more what failed: a deadline may be other workers' fault, or an emulator's. Both are shown.

    A run that recorded no failed test, having broken off, is not made good by that: pytest ends with 5 then. What
    failed is kept apart from other lanes' and other runs'.
    """
    tests += " -o cache_dir=build/lanes/failed-$$"
    return f"{shared} {tests} || {{ echo; echo '{words}:'; {alone} {tests}; }}"


def _in_workers(how: str, tests: str) -> str:
    """Tests that do not need each other, in a worker for each processor; those that failed once more, alone."""
    alone = f"{_PYTEST} --last-failed --last-failed-no-failures none"
    return _again(f"{_SHARED} --dist {how}", tests, alone, "what failed is tried once more, alone")


def _in_suites(tests: str) -> str:
    """Tests of which each needs those before it; the suites in which one failed once more, on new machines."""
    alone = f"{_PYTEST} --suites-that-failed"
    return _again(f"{_PYTEST} --durations=15", tests, alone, "the suites in which a step failed are tried once more")


def _lanes(*, everything: bool) -> tuple[Step, ...]:
    long = 4 if everything else 1
    matrix = f" {_MATRIX}" if everything else ""
    left_out = "" if everything else "".join(f" --ignore {suite}" for suite in _FURTHER_SUITES)
    return (
        # Its machine keeps one processor busy, mostly waiting for each thing in turn: the longest, so it begins first.
        Step("kvm", _in_suites(f"tests/kvm{left_out}"), 1, 60 * 60 * long, ("release", "machines")),
        Step("check", _CHECK, deadline_s=15 * 60),
        Step("unit", _in_workers("loadfile", "tests/unit"), 0, 30 * 60 * long, ("plugins",)),
        Step(
            "vm",
            _in_workers("loadscope", f"tests/vm{matrix}"),
            0,
            60 * 60 * long,
            (*_MACHINE, "distros", "big-guest"),
        ),
    )


def plan(lanes: Sequence[str], *, everything: bool = False) -> list[Step]:
    """The lanes named, with all that they need, in order. `everything`: the whole matrix of the vm lane."""
    steps = (*_BUILDS, *_lanes(everything=everything))
    by_name = {step.name: step for step in steps}
    wanted: set[str] = set()

    def want(names: Iterable[str]) -> None:
        for name in names:
            wanted.add(name)
            want(by_name[name].after)

    want(lanes)
    return [step for step in steps if step.name in wanted]


def next_step(waiting: Sequence[Step], running: Iterable[Step], done: Iterable[str], cores: int) -> Step | None:
    """The first of those that wait whose turn it is: what it needs is there, and there is room for it."""
    finished, together = set(done), list(running)
    taken = sum(_cores(step, cores) for step in together)
    whole = any(step.cores == 0 for step in together)
    for step in waiting:
        fits = taken + _cores(step, cores) <= cores + 1 and not (whole and step.cores == 0)
        if fits and set(step.after) <= finished:
            return step
    return None


def hopeless(waiting: Sequence[Step], failed: Iterable[str]) -> dict[str, str]:
    """Those that cannot be done any more, each with the failed step that it needs, directly or not."""
    why = {name: name for name in failed}
    found: dict[str, str] = {}
    for step in waiting:  # what is needed comes first
        for name in step.after:
            if name in why:
                found[step.name] = why[step.name] = why[name]
                break
    return found


def _cores(step: Step, cores: int) -> int:
    return min(step.cores, cores) or cores
