"""Random calls to a real shim, each answer compared with what the model allows.

One run is one shim: a container that is created, called in whatever order, deleted and perhaps created anew, and at the
end removed, with a look at all that was told of it. Two calls may be made at once: then they have to be answered as if
one had come after the other.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from google.protobuf.empty_pb2 import Empty
from hypothesis import note
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from hypothesis.vendor.pretty import RepresentationPrinter

from api import task_pb2
from conformance import moves
from conformance.calls import CALLS, Call, Known, exec_request
from conformance.model import ABSENT, ENDS, MISSING, SLEEPS, Model, Move
from conformance.stage import CALL_DEADLINE_S, PATIENCE_S, SLEEP, Answer, Stage, process
from harness.deadline import eventually

_EVENTS_DEADLINE_S: Final = 15.0
_PROGRAMS: Final = {SLEEPS: SLEEP, ENDS: ("true",), MISSING: ("/nonexistent",)}
# The execs of a `Pids` in words: the exec's pid (f).
_PIDS_EXEC: Final = re.compile(r"\((\w+)\)")
_IDS: Final = some.sampled_from(["f", "g"])
_SIGNALS: Final = some.sampled_from([9, 15])


class Place(Protocol):
    """Where shims are started."""

    def stage(self, args: tuple[str, ...]) -> Stage:
        """A shim whose container is to run that, not created yet."""


@dataclass(frozen=True, repr=False)
class Step:
    """A call, for which process it is, and what the model says of it."""

    call: Call
    exec_id: str
    move: Move

    def __repr__(self) -> str:
        return f"{self.call.name} {self.exec_id}".strip()

    def _repr_pretty_(self, printer: RepresentationPrinter, _cycle: bool) -> None:
        """As hypothesis shows it."""
        printer.text(repr(self))


def _kill(number: int) -> Call:
    def request(known: Known, exec_id: str) -> task_pb2.KillRequest:
        return task_pb2.KillRequest(id=known.container_id, exec_id=exec_id, signal=number)

    return Call(f"Kill({number})", "Kill", request, Empty, lambda _known, _reply: "")


def _exec(kind: str) -> Call:
    def request(known: Known, exec_id: str) -> task_pb2.ExecProcessRequest:
        return exec_request(known, exec_id, process(*_PROGRAMS[kind]))

    return Call(f"Exec({kind})", "Exec", request, Empty, lambda _known, _reply: "")


def _killing(number: int) -> Step:
    return Step(_kill(number), "", moves.kill(number))


def _killing_exec(exec_id: str, number: int) -> Step:
    return Step(_kill(number), exec_id, moves.kill_exec(exec_id))


def _adding(exec_id: str, kind: str) -> Step:
    return Step(_exec(kind), exec_id, moves.add(exec_id, kind))


def _starting(exec_id: str) -> Step:
    return Step(CALLS["Start"], exec_id, moves.start_exec(exec_id))


def _calling(name: str, exec_id: str) -> Step:
    return Step(CALLS[name], exec_id, _CALLS_OF_EXECS[name](exec_id))


_CALLS_OF_EXECS: Final[dict[str, Callable[[str], Move]]] = {
    "State(exec)": moves.state,
    "Wait(exec)": moves.wait,
    "Delete(exec)": moves.delete_exec,
    "ResizePty(exec)": moves.always,
    "CloseIO(exec)": moves.always,
}
_FOR_THE_CONTAINER: Final = some.sampled_from(
    [
        Step(CALLS["Start"], "", moves.start()),
        Step(CALLS["State"], "", moves.state()),
        Step(CALLS["Wait"], "", moves.wait()),
        Step(CALLS["Pause"], "", moves.pause()),
        Step(CALLS["Resume"], "", moves.resume()),
        Step(CALLS["Pids"], "", moves.pids()),
        Step(CALLS["Stats"], "", moves.always()),
        Step(CALLS["Update"], "", moves.update()),
        Step(CALLS["ResizePty"], "", moves.always()),
        Step(CALLS["CloseIO"], "", moves.always()),
        Step(CALLS["Connect"], "", moves.connect()),
        Step(CALLS["Checkpoint"], "", moves.not_there()),
    ]
)
_ENDING: Final = some.one_of(
    some.just(Step(CALLS["Kill(all)"], "", moves.kill_all())),
    some.builds(_killing, _SIGNALS),
)
_ADDING: Final = some.builds(_adding, _IDS, some.sampled_from([SLEEPS, SLEEPS, ENDS, MISSING]))
_STARTING: Final = some.builds(_starting, _IDS)
_FOR_AN_EXEC: Final = some.one_of(
    some.builds(_calling, some.sampled_from([*_CALLS_OF_EXECS]), _IDS),
    some.builds(_killing_exec, _IDS, _SIGNALS),
)
_ANY: Final = some.one_of(_FOR_THE_CONTAINER, _ADDING, _STARTING, _FOR_AN_EXEC)


class Calls(RuleBasedStateMachine):
    """To be given a place: `Calls.at(place)`."""

    place: Place

    @classmethod
    def at(cls, place: Place) -> type["Calls"]:
        """Such machines, with their shims started there."""
        return type("Calls", (cls,), {"place": place})

    def __init__(self) -> None:
        super().__init__()
        self.stage: Stage | None = None
        self.kind = SLEEPS
        self.model = Model()
        self.waiting: list[asyncio.Task[Answer]] = []

    @initialize(kind=some.sampled_from([SLEEPS, SLEEPS, SLEEPS, ENDS]), started=some.booleans())
    def begin(self, kind: str, started: bool) -> None:
        """A shim, and its container; most calls are for one that runs."""
        self.kind = kind
        self.stage = self.place.stage(_PROGRAMS[kind])
        self._step(Step(CALLS["Create"], "", moves.create(kind)))
        if started:
            self._step(Step(CALLS["Start"], "", moves.start()))

    @rule(step=_FOR_THE_CONTAINER)
    def call_for_the_container(self, step: Step) -> None:
        self._step(step)

    @rule(step=_ADDING)
    def add(self, step: Step) -> None:
        self._step(step)

    @rule(step=_STARTING)
    def start(self, step: Step) -> None:
        self._step(step)

    @rule(exec_id=_IDS, kind=some.sampled_from([SLEEPS, ENDS, MISSING]))
    def run(self, exec_id: str, kind: str) -> None:
        """As `ctr tasks exec` does."""
        self._step(_adding(exec_id, kind))
        self._step(_starting(exec_id))

    @rule(step=_FOR_AN_EXEC)
    def call_for_an_exec(self, step: Step) -> None:
        self._step(step)

    @rule(first=_ANY, second=_ANY)
    def call_at_once(self, first: Step, second: Step) -> None:
        """Two calls at once."""
        assert self.stage is not None
        made = [(step.call, step.exec_id, self._patience_s(step)) for step in (first, second)]
        answers = self.stage.ask_at_once(*made)
        said = (_beside(second, _in_words(first, answers[0])), _beside(first, _in_words(second, answers[1])))
        note(f"{first} and {second}: {said}")
        self.model.observe_both((first.move, second.move), said)

    # What ends a container comes less often: there would be nothing else.

    @precondition(lambda self: self.model.calls % 3 == 0)
    @rule(step=_ENDING)
    def end(self, step: Step) -> None:
        self._step(step)

    @precondition(lambda self: self.model.calls % 4 == 0)
    @rule()
    def delete(self) -> None:
        self._step(Step(CALLS["Delete"], "", moves.delete()))

    @precondition(lambda self: self.is_gone or self.model.calls % 5 == 0)
    @rule()
    def create(self) -> None:
        """Again, or anew."""
        self._step(Step(CALLS["Create"], "", moves.create(self.kind)))

    @precondition(lambda self: not self.is_gone)
    @rule()
    def shutdown(self) -> None:
        """With a container it does nothing; without one it would end the shim."""
        self._step(Step(CALLS["Shutdown"], "", moves.always()))

    @rule(exec_id=some.one_of(some.just(""), _IDS))
    def wait_beside(self, exec_id: str) -> None:
        """A Wait that goes on; at the latest with the container it is answered."""
        assert self.stage is not None
        self.waiting.append(self.stage.wait_beside(exec_id))

    @property
    def is_gone(self) -> bool:
        """Whether there may be no container."""
        return any(world.init.state == ABSENT for world in self.model.worlds)

    def _step(self, step: Step) -> None:
        assert self.stage is not None
        answer = _in_words(step, self.stage.ask(step.call, step.exec_id, self._patience_s(step)))
        note(f"{step}: {answer}")
        self.model.observe(step.move, answer)

    def _patience_s(self, step: Step) -> float:
        """A Wait for what has ended for certain must be answered, however long it takes on a busy host."""
        return PATIENCE_S if self.model.may_answer(step.move, moves.WAITS) else CALL_DEADLINE_S

    def teardown(self) -> None:
        """Remove it, and look at what was told."""
        stage, self.stage = self.stage, None
        if stage is None:
            return
        try:
            stage.finish()
            for waiting in self.waiting:
                assert (answer := stage.answer_of(waiting)).code in ("OK", "NOT_FOUND"), answer
        finally:
            stage.remove()
        try:
            eventually(lambda: not stage.faults(), "the events make sense", _EVENTS_DEADLINE_S)
        except AssertionError:
            raise AssertionError(f"{stage.faults()} in {stage.told.all}") from None


def _beside(other: Step, words: str) -> str:
    """An answer that came while another call was under way: a pause that is not over yet can be seen."""
    return "OK running" if words == "OK pausing" and other.call.name == "Pause" else words


def _in_words(step: Step, answer: Answer) -> str:
    """The answer as the model has it."""
    if answer.code != "OK":
        return answer.code
    if step.call.method == "State":
        return f"OK {answer.words.partition(',')[0]}"
    if step.call.method == "Pids":
        return " ".join(["OK", *sorted(_PIDS_EXEC.findall(answer.words))])
    return "OK"
