"""The moments at which a container's hooks run on the host (runtime-spec, runtime.md, Lifecycle).

Create runs prestart and createRuntime hooks when the anchor stands, whose network namespace and
pid they are told, and before the machine gets the container. Start runs poststart hooks, Delete
poststop hooks when all else is gone. What must not be forgotten then is written down before the
first hook runs; where no hook has run, there is nothing for poststop hooks to undo.
"""

import asyncio
import os
from pathlib import Path

from shim import deadlines
from shim.errors import HostError
from shim.hooks import document as hooks_document
from shim.hooks import poststop
from shim.hooks.hook import Hook, HookError, run
from shim.journal import Journal
from shim.log import Logger
from shim.reclaim import record_child
from shim.spec import Json


class Hooks:
    """The hooks of one container. `directory` is the shim's own. Raises what shim/hooks/document.py raises."""

    def __init__(
        self, document: Json, *, container_id: str, bundle: str, directory: Path, journal: Journal, log: Logger
    ) -> None:
        self._hooks = hooks_document.read(document)
        self._document = document
        self._container_id = container_id
        self._bundle = bundle
        self._directory = directory
        self._journal = journal
        self._log = log
        self._left: list[str] = []

    @property
    def in_create(self) -> bool:
        """Whether there are any that `create_runtime` runs."""
        return bool(self._hooks["prestart"] or self._hooks["createRuntime"])

    async def create_runtime(self, pid: int) -> None:
        """Those of Create, in their order; `pid` is the anchor's. Raises HostError for the first that fails."""
        try:
            await self._create_runtime(pid)
        except OSError as error:  # of the journal, or of the anchor that somebody has ended
            raise HostError(f"cannot run the container's hooks: {error}") from error

    async def _create_runtime(self, pid: int) -> None:
        if self._hooks["poststop"]:
            self._left = poststop.leave(
                self._directory, self._journal, self._hooks["poststop"], self._state("stopped"), self._bundle
            )
        for moment in ("prestart", "createRuntime"):
            for hook in self._hooks[moment]:
                try:
                    await self._run(hook, self._state("creating", pid))
                except HookError as error:
                    raise HostError(f"{moment} hook: {error}") from error

    async def started(self, pid: int) -> None:
        """Those of Start; one that fails is logged."""
        for hook in self._hooks["poststart"]:
            try:
                await self._run(hook, self._state("running", pid))
            except (HookError, OSError) as error:
                self._log.warning("a hook failed", error=f"poststart hook: {error}")

    async def deleted(self) -> None:
        """Those after the end, if any of Create's has run; each once, and one that fails is logged."""
        for path in self._left:
            left = poststop.take(path)
            if left is None:
                continue
            try:
                await self._run(left.hook, left.state)
            except (HookError, OSError) as error:
                self._log.warning("a hook failed", error=f"poststop hook: {error}")

    def _state(self, status: str, pid: int = 0) -> bytes:
        return hooks_document.state(
            self._document, container_id=self._container_id, bundle=self._bundle, status=status, pid=pid
        )

    async def _run(self, hook: Hook, state: bytes) -> None:
        """Run one on a thread; whoever no longer wants it has it killed. Raises HookError."""
        cancel = os.eventfd(0, os.EFD_CLOEXEC)
        running = asyncio.ensure_future(
            asyncio.to_thread(
                run,
                hook,
                state,
                directory=self._bundle,
                limit_s=deadlines.HOOK_S,
                on_start=self._record,
                cancelled=cancel,
            )
        )
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            os.eventfd_write(cancel, 1)
            await asyncio.wait([running])
            running.exception()  # it says that it was cancelled
            raise
        finally:
            os.close(cancel)

    def _record(self, pid: int) -> None:
        record_child(self._journal, pid)
