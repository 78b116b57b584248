"""Calls in a random order, some at the same time, to a real shim: see conformance/machine.py.

The same ones in each run, as many as one minute allows; more, and others, with `--state-machine N`.
"""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from conformance.machine import Calls
from conformance.stage import Stage
from harness.box import Box
from harness.events import Events
from harness.shim import Record

_EXAMPLES = 5
_STEPS = 25


class Shims:
    """Starts shims, one after the other."""

    def __init__(self, record: Record, runner: asyncio.Runner, events: Events) -> None:
        self._record = record
        self._runner = runner
        self._events = events

    def stage(self, args: tuple[str, ...]) -> Stage:
        """One more shim, for a container that runs `args`."""
        return Stage(self._record, "qemubox", self._runner, self._events, args)


@pytest.fixture
def shims(vm: Box) -> Iterator[Shims]:
    record = Record(vm.containerd, vm.new_id())
    with asyncio.Runner() as runner, vm.events() as events:
        yield Shims(record, runner, events)
    record.remove()


@pytest.mark.on("2")
@pytest.mark.timeout(1800)
def test_whatever_is_called_in_whatever_order(shims: Shims, request: pytest.FixtureRequest) -> None:
    examples = request.config.getoption("state_machine")
    run_state_machine_as_test(
        Calls.at(shims),
        settings=settings(
            max_examples=examples or _EXAMPLES,
            stateful_step_count=_STEPS,
            derandomize=not examples,
            database=None,
            deadline=None,
            # A shorter sequence would take the same machines again, many times.
            phases=[Phase.generate],
            suppress_health_check=[*HealthCheck],
            print_blob=True,
        ),
    )
