"""Runs the steps, several at once, each with its output in a file of its own; ends them all when told to.

A step is a process group. It is ended by SIGINT, as ^C does, for pytest takes down what it has made then; what is
still there after some time is killed. The cells of the tests end with their test run however that ends.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.lanes.plan import Step, hopeless, next_step
from tests.lanes.report import Ended, clock, summary, under_way

ROOT: Final = Path(__file__).resolve().parents[2]
LOGS: Final = ROOT / "build/lanes"
_SAID_EVERY_S: Final = 60.0
_TIDY_S: Final = 60.0
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What nohup and a shell's `&` have ignored would be ignored by all that tests start: env(1), of coreutils.
_AS_USUAL: Final = ("env", "--default-signal=HUP,INT,QUIT")


def say(line: str = "") -> None:
    """A line on standard output, at once."""
    print(f"lanes: {line}" if line else "", flush=True)


class Running:
    """A step that was started."""

    def __init__(self, step: Step, logs: Path, root: Path) -> None:
        self.step = step
        self.path = logs / f"{step.name}.log"
        self.shown = os.path.relpath(self.path, root)
        self.began = time.monotonic()
        with self.path.open("wb") as log:
            self.process = subprocess.Popen(
                [*_AS_USUAL, "sh", "-c", step.command],
                cwd=root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )

    @property
    def seconds(self) -> float:
        """Since its start."""
        return time.monotonic() - self.began

    def said(self) -> str:
        """Its output so far."""
        return self.path.read_text(errors="replace")

    def signal(self, number: int) -> None:
        """Send it to all of the group that is still there."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return

    async def end(self) -> None:
        """End it: with time to take down what it has made, and then without."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self.signal(number)
            try:
                async with asyncio.timeout(_TIDY_S):
                    await self._over()
                break
            except TimeoutError:
                continue
        self.signal(signal.SIGKILL)
        await self._over()

    async def wait(self) -> Ended:
        """How it ended, by itself or at its deadline."""
        problem = ""
        try:
            async with asyncio.timeout(self.step.deadline_s):
                await self._over()
            if self.process.returncode:
                problem = f"exit status {self.process.returncode}"
        except TimeoutError:
            problem = f"ended after {clock(self.step.deadline_s)}, its deadline"
            await self.end()
        return Ended(self.step.name, self.step.is_lane, self.seconds, problem, self.shown, self.said())

    async def _over(self) -> None:
        # A pidfd can be waited for; subprocess of asyncio would need its own pipes and watcher.
        pidfd = os.pidfd_open(self.process.pid) if self.process.poll() is None else -1
        if pidfd < 0:
            return
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(pidfd, over.set)
        try:
            await over.wait()
            self.process.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)


class Lanes:
    """All steps of a run. `cores` is what the machine has."""

    def __init__(self, steps: Sequence[Step], cores: int, logs: Path = LOGS, root: Path = ROOT) -> None:
        self._waiting = list(steps)
        self._cores = cores
        self._logs = logs
        self._root = root
        self._running: dict[asyncio.Task[Ended], Running] = {}
        self._ended: list[Ended] = []
        self._began = time.monotonic()
        self._stop = asyncio.Event()
        self._why = ""

    def stop(self, why: str) -> None:
        """End all that runs, start no more."""
        self._why = self._why or why
        self._stop.set()

    async def run(self, deadline_s: float) -> int:
        """Run them; the exit status: 0 if all succeeded, 130 if it was stopped, or 1."""
        self._logs.mkdir(parents=True, exist_ok=True)
        loop = asyncio.get_running_loop()
        heard = [number for number in _SIGNALS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
        for number in heard:  # SIGHUP not under nohup
            loop.add_signal_handler(number, self.stop, f"stopped by {number.name}")
        timer = loop.call_later(deadline_s, self.stop, f"stopped after {clock(deadline_s)}, the deadline of all")
        try:
            await self._work()
        finally:
            timer.cancel()
            for number in heard:
                loop.remove_signal_handler(number)
        say()
        for line in summary(self._ended, time.monotonic() - self._began):
            say(line)
        if self._why:
            say(self._why)
            return 130
        return 1 if any(each.problem for each in self._ended) else 0

    async def _work(self) -> None:
        stopped = asyncio.create_task(self._stop.wait())
        while not self._stop.is_set() and (self._waiting or self._running):
            self._begin()
            if not self._running:
                continue  # what waited cannot be done: it has been dropped
            waited: set[asyncio.Task[bool] | asyncio.Task[Ended]] = {stopped, *self._running}
            done, _ = await asyncio.wait(waited, timeout=_SAID_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in self._running if task in done]:
                del self._running[task]
                self._note(task.result())
            if not done:
                now = [under_way(each.step.name, each.seconds, each.said()) for each in self._running.values()]
                say(f"{clock(time.monotonic() - self._began)}: {', '.join(now)}")
        stopped.cancel()
        await self._end_all()

    def _begin(self) -> None:
        """Start all whose turn it is, and drop what cannot be done."""
        for name, needed in hopeless(self._waiting, [each.name for each in self._ended if each.problem]).items():
            (step,) = (step for step in self._waiting if step.name == name)
            self._waiting.remove(step)
            self._note(Ended(name, step.is_lane, 0, f"not run, as {needed} failed"))
        done = [each.name for each in self._ended if not each.problem]
        while following := next_step(self._waiting, [each.step for each in self._running.values()], done, self._cores):
            self._waiting.remove(following)
            running = Running(following, self._logs, self._root)
            self._running[asyncio.create_task(running.wait())] = running
            if following.is_lane:
                say(f"{following.name} begins")

    def _note(self, ended: Ended) -> None:
        """One has ended: a lane's output is shown whole, that of a build if it failed."""
        self._ended.append(ended)
        if ended.log and (ended.is_lane or ended.problem):
            say()
            say(f"{'=' * 20} {ended.name} {'=' * 20}")
            sys.stdout.write(ended.log.rstrip("\n") + "\n")
        say(f"{ended.name}: {ended.problem or 'passed'}, {clock(ended.seconds)}")

    async def _end_all(self) -> None:
        """What still runs is ended; what has not begun is told of."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*(each.end() for each in self._running.values()))
        for each in self._running.values():
            self._note(Ended(each.step.name, each.step.is_lane, each.seconds, self._why, each.shown, each.said()))
        for step in self._waiting:
            self._note(Ended(step.name, step.is_lane, 0, f"not run: {self._why}"))
