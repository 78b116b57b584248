"""`qemubox exec --vm`: a program in the guest's own root, its streams carried through pipes that the shim opens.

The shim has the pipes' other ends (shim/admin.py). Threads carry between them and our standard streams, which may be
anything: files, which no event loop waits for, among them.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Final, TypeVar

from api import admin_pb2
from api.admin_ttrpc import AdminStub
from shim import deadlines
from shim.config import load
from shim.copy.address import Address, locate
from shim.copy.connection import connection
from shim.errors import GuestError, HostError, SpecError
from ttrpc import Code, StatusError

# As timeout(1) has it.
LATE: Final = 124
_PIECE: Final = 65536
_Answer = TypeVar("_Answer")


def run(arguments: argparse.Namespace) -> int:
    """Run it; its exit status. Raises what is wrong, of shim/errors.py."""
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not arguments.vm:
        raise SpecError(
            "exec without --vm: programs in the container are its client's", hint="ctr task exec, nerdctl exec"
        )
    if not command:
        raise SpecError("no program is named", hint="such as -- python3.13 -c 'print(1)', or -- crun --version")
    shim = locate(Path(load().runtime.state_dir), arguments.id, arguments.namespace)
    end = asyncio.run(
        execute(
            shim.address, [os.fsencode(word) for word in command], arguments.timeout, interactive=arguments.interactive
        )
    )
    if end.late:
        print(f"qemubox: the program was ended after {arguments.timeout} s (see --timeout)", file=sys.stderr)
        return LATE
    return end.status


async def execute(address: Address, command: list[bytes], limit_s: int, *, interactive: bool) -> admin_pb2.Execution:
    """Run it with our own streams; how it ended. Raises what is wrong, of shim/errors.py."""
    with contextlib.ExitStack() as theirs:
        broken = _Broken()
        stdout, stderr = _Output(theirs, 1, broken), _Output(theirs, 2, broken)
        stdin = _Input(theirs, broken) if interactive else None
        request = admin_pb2.ExecuteRequest(
            container_id=address.id,
            arguments=command,
            limit_ms=limit_s * 1000,
            has_stdin=stdin is not None,
            stdin=stdin.theirs if stdin else 0,
            stdout=stdout.theirs,
            stderr=stderr.theirs,
        )
        try:
            async with connection(address.socket) as client, AdminStub(client).Execute(request) as stream:
                async with asyncio.timeout(limit_s + deadlines.GUEST_CALL_S + 2 * deadlines.DRAIN_S):
                    if await stream.receive() is None:
                        raise StatusError(Code.INTERNAL, "the shim has ended the call before it began")
                    theirs.close()  # the shim has them open by now
                    for each in (stdout, stderr, *((stdin,) if stdin else ())):
                        each.thread.start()
                    last = await _unless(broken, stream.receive())
        except StatusError as error:
            raise GuestError(error.code, error.message) from error
        except TimeoutError:
            raise HostError("the shim does not tell of the program's end") from None
    if last is None or not last.ended:
        raise GuestError(Code.INTERNAL, "the shim has ended the call without a word")
    for output in (stdout, stderr):
        await asyncio.to_thread(output.thread.join, deadlines.DRAIN_S)
    if broken.error is not None:  # of the last that it said
        raise broken.error
    return last


async def _unless(broken: "_Broken", answer: Coroutine[object, object, _Answer]) -> _Answer:
    """The answer. Raises once a stream of ours has failed: the program is to end then, as in a shell."""
    waiting, breaking = asyncio.ensure_future(answer), asyncio.ensure_future(broken.happened.wait())
    try:
        await asyncio.wait((waiting, breaking), return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            assert broken.error is not None
            raise broken.error
        return waiting.result()
    finally:
        for task in (waiting, breaking):
            task.cancel()
        await asyncio.gather(waiting, breaking, return_exceptions=True)


class _Broken:
    """Why one of our streams does not go on: BrokenPipeError where nobody reads what the program says, HostError."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.happened = asyncio.Event()
        self.error: BrokenPipeError | HostError | None = None

    def tell(self, stream: str, error: OSError) -> None:
        """From a thread."""
        self.error = error if isinstance(error, BrokenPipeError) else HostError(f"{stream}: {error.strerror}")
        with contextlib.suppress(RuntimeError):  # it is all over already
            self._loop.call_soon_threadsafe(self.happened.set)


class _Output:
    """One of our outputs; `theirs` is the end of its pipe that the program writes to."""

    def __init__(self, theirs: contextlib.ExitStack, target: int, broken: _Broken) -> None:
        self._broken = broken
        self._reading, self.theirs = os.pipe()
        theirs.callback(os.close, self.theirs)
        self._target = target
        self.thread = threading.Thread(target=self._carry, daemon=True)

    def _carry(self) -> None:
        try:
            while data := os.read(self._reading, _PIECE):
                while data:
                    data = data[os.write(self._target, data) :]
        except OSError as error:  # whoever reads ours has had enough; a full disk
            self._broken.tell("standard output" if self._target == 1 else "standard error", error)
        finally:
            os.close(self._reading)


class _Input:
    """Our standard input; `theirs` is the end of its pipe that the program reads from."""

    def __init__(self, theirs: contextlib.ExitStack, broken: _Broken) -> None:
        self._broken = broken
        self.theirs, self._writing = os.pipe()
        theirs.callback(os.close, self.theirs)
        self.thread = threading.Thread(target=self._carry, daemon=True)

    def _carry(self) -> None:
        try:
            while data := os.read(0, _PIECE):
                while data:
                    data = data[os.write(self._writing, data) :]
        except BrokenPipeError:  # the program takes no more
            pass
        except OSError as error:  # below nohup(1), say: the program would wait for what does not come
            self._broken.tell("standard input", error)
        finally:
            os.close(self._writing)
