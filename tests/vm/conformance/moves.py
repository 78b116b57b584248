"""What each call does in a world of the model, and what it answers there."""

from collections.abc import Iterable
from dataclasses import replace

from conformance.model import (
    ABSENT,
    CREATED,
    ENDS,
    MISSING,
    NOT_FOUND,
    PAUSED,
    REFUSED,
    RUNNING,
    STOPPED,
    TAKEN,
    Move,
    Outcome,
    Process,
    World,
    doomed,
    late,
)

OK = "OK"
WAITS = "waits"
SIGKILL = 9


def _there(move: Move) -> Move:
    """A call for a container: of none nothing is found."""
    return lambda world: move(world) if world.init.state != ABSENT else [(NOT_FOUND, world)]


def _of_exec(exec_id: str, move: Move) -> Move:
    """A call for one of its processes."""
    return _there(lambda world: move(world) if world.exec(exec_id).state != ABSENT else [(NOT_FOUND, world)])


def create(kind: str) -> Move:
    """A container whose first process is of that kind."""

    def move(world: World) -> Iterable[Outcome]:
        if world.init.state != ABSENT:
            return [(TAKEN, world)]
        return [(OK, World(Process(CREATED, kind)))]

    return move


def start() -> Move:
    """The first process."""

    def move(world: World) -> Iterable[Outcome]:
        init = world.init
        if init.state != CREATED:
            return [(REFUSED, world)]
        started = replace(world, init=replace(init, state=RUNNING, doomed=init.doomed or init.kind == ENDS))
        if not init.doomed:
            return [(OK, started)]
        # A start that fails leaves a process that runs and ends.
        return [(OK, started), *late(started), *late(world)]

    return _there(move)


def add(exec_id: str, kind: str) -> Move:
    """Exec."""

    def move(world: World) -> Iterable[Outcome]:
        if world.exec(exec_id).state != ABSENT:
            return [(TAKEN, world)]
        if world.init.state not in (CREATED, RUNNING):
            return [(REFUSED, world)]
        return [(OK, world.with_exec(exec_id, Process(CREATED, kind)))]

    return _there(move)


def start_exec(exec_id: str) -> Move:
    """Start of a further process."""

    def move(world: World) -> Iterable[Outcome]:
        process = world.exec(exec_id)
        if process.state != CREATED or world.init.state not in (CREATED, RUNNING):
            return [(REFUSED, world)]
        failed = world.with_exec(exec_id, replace(process, state=STOPPED))
        if process.kind == MISSING:
            return [("INTERNAL", failed), *(late(failed) if world.init.doomed else [])]
        ends = process.kind == ENDS or world.init.doomed
        started = [(OK, world.with_exec(exec_id, replace(process, state=RUNNING, doomed=ends)))]
        return [*started, *late(failed)] if world.init.doomed else started

    return _of_exec(exec_id, move)


def state(exec_id: str = "") -> Move:
    """State: answered with a word."""

    def move(world: World) -> Iterable[Outcome]:
        word = world.exec(exec_id).state if exec_id else world.init.state
        if exec_id and word in (CREATED, RUNNING) and world.init.state == PAUSED:
            word = PAUSED
        return [(f"OK {word}", world)]

    return _of_exec(exec_id, move) if exec_id else _there(move)


def wait(exec_id: str = "") -> Move:
    """Wait, which is called off soon where it is not answered."""

    def move(world: World) -> Iterable[Outcome]:
        process = world.exec(exec_id) if exec_id else world.init
        return [(OK if process.state == STOPPED else WAITS, world)]

    return _of_exec(exec_id, move) if exec_id else _there(move)


def kill(number: int) -> Move:
    """Of the first process: number 1 of its namespace, which no other signal ends, once it runs."""

    def move(world: World) -> Iterable[Outcome]:
        if world.init.state == STOPPED:
            return [(NOT_FOUND, world)]
        if number != SIGKILL and world.init.state != CREATED:
            return [(OK, world), *(late(world) if world.init.doomed else [])]
        return [(OK, _fallen(world)), *(late(world) if world.init.doomed else [])]

    return _there(move)


def kill_all() -> Move:
    """SIGKILL to all."""

    def move(world: World) -> Iterable[Outcome]:
        return [(OK, _fallen(world)), *(late(world) if world.init.doomed else [])]

    return _there(move)


def _fallen(world: World) -> World:
    """All is on its way out; what is registered only stays."""
    execs = world.each_exec(lambda each: doomed(each) if each.state == RUNNING else each)
    return replace(execs, init=doomed(world.init))


def kill_exec(exec_id: str) -> Move:
    """Of a further one, by whatever signal: none of them handles any."""

    def move(world: World) -> Iterable[Outcome]:
        process = world.exec(exec_id)
        if process.state == CREATED:
            return [(REFUSED, world)]
        if process.state == STOPPED:
            return [(NOT_FOUND, world)]
        fallen = world.with_exec(exec_id, doomed(process))
        return [(OK, fallen), *(late(world) if process.doomed else [])]

    return _of_exec(exec_id, move)


def delete() -> Move:
    """Of the container, with all its processes. One that was never started is ended by it."""

    def move(world: World) -> Iterable[Outcome]:
        if world.init.state in (RUNNING, PAUSED):
            return [(REFUSED, world)]
        return [(OK, World(Process(ABSENT)))]

    return _there(move)


def delete_exec(exec_id: str) -> Move:
    """Of a further process."""

    def move(world: World) -> Iterable[Outcome]:
        if world.exec(exec_id).state == RUNNING:
            return [(REFUSED, world)]
        return [(OK, world.with_exec(exec_id, Process(ABSENT)))]

    return _of_exec(exec_id, move)


def _between(before: str, after: str) -> Move:
    def move(world: World) -> Iterable[Outcome]:
        if world.init.state != before:
            return [(REFUSED, world)]
        done = (OK, replace(world, init=replace(world.init, state=after)))
        return [done, *(late(world) if world.init.doomed else [])]

    return _there(move)


def pause() -> Move:
    """Only of what runs."""
    return _between(RUNNING, PAUSED)


def resume() -> Move:
    """Only of what is paused."""
    return _between(PAUSED, RUNNING)


def update() -> Move:
    """Until the end."""

    def move(world: World) -> Iterable[Outcome]:
        if world.init.state == STOPPED:
            return [(REFUSED, world)]
        return [(OK, world), *(late(world) if world.init.doomed else [])]

    return _there(move)


def always(exec_id: str = "") -> Move:
    """Whatever has no effect, and is answered in every state: Stats, Shutdown, CloseIO, ResizePty on a terminal."""

    def move(world: World) -> Iterable[Outcome]:
        process = world.exec(exec_id) if exec_id else world.init
        return [(OK, world), *(late(world) if process.doomed else [])]

    return _of_exec(exec_id, move) if exec_id else _there(move)


def pids() -> Move:
    """Pids: answered with the ids of the further processes that run."""

    def move(world: World) -> Iterable[Outcome]:
        running = [exec_id for exec_id, process in world.execs if process.state == RUNNING]
        return [(" ".join([OK, *running]), world)]

    return _there(move)


def not_there() -> Move:
    """Checkpoint."""
    return lambda world: [("UNIMPLEMENTED", world)]


def connect() -> Move:
    """It never fails."""
    return lambda world: [(OK, world)]
