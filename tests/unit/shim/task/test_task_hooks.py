"""When a container's hooks run, what they are told then, and what comes of one that fails."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from shim.errors import HostError
from shim.journal import Journal
from shim.log import Logger
from shim.reclaim import reclaim
from shim.spec import Json, JsonValue
from shim.task.hooks import Hooks
from tests.unit.shim.observe import same_fds
from tests.unit.shim.task.ends import soon


class Moments:
    """Makes the hooks of a container, which write into the bundle what they are told."""

    def __init__(self, bundle: Path, directory: Path, log: Logger) -> None:
        self.bundle = bundle
        self.directory = directory
        self._log = log

    def hooks(self, **scripts: list[str]) -> Hooks:
        """Hooks that run these shell scripts."""
        made: Json = {}
        for moment, texts in scripts.items():
            hooks: list[JsonValue] = [
                {"path": "/bin/sh", "args": ["sh", "-c", text], "env": ["PATH=/usr/bin:/bin"]} for text in texts
            ]
            made[moment] = hooks
        return Hooks(
            {"ociVersion": "1.1.0", "annotations": {"a": "b"}, "hooks": made},
            container_id="c",
            bundle=str(self.bundle),
            directory=self.directory,
            journal=Journal(self.directory),
            log=self._log,
        )

    @property
    def ran(self) -> list[str]:
        """Which have run, in order."""
        path = self.bundle / "ran"
        return path.read_text().split() if path.exists() else []

    def told(self, name: str) -> Json:
        """The state that a hook has kept."""
        document: Json = json.loads((self.bundle / name).read_text())
        return document


@pytest.fixture
def moments(tmp_path: Path, log: Logger) -> Moments:
    for name in ("bundle", "vm"):
        (tmp_path / name).mkdir()
    log.info("the log is open")
    return Moments(tmp_path / "bundle", tmp_path / "vm", log)


async def test_each_moment_has_its_hooks_and_its_state(moments: Moments) -> None:
    hooks = moments.hooks(
        createRuntime=["echo createRuntime >>ran; cat >creating", "echo again >>ran"],
        prestart=["echo prestart >>ran"],
        poststart=["echo poststart >>ran; cat >running"],
        poststop=["echo poststop >>ran; cat >stopped"],
    )
    with same_fds():
        await soon(hooks.create_runtime(os.getpid()))
        assert moments.ran == ["prestart", "createRuntime", "again"]
        await soon(hooks.started(5))
        await soon(hooks.deleted())
        await soon(hooks.deleted())
    assert moments.ran == ["prestart", "createRuntime", "again", "poststart", "poststop"]
    common = {"ociVersion": "1.1.0", "id": "c", "bundle": str(moments.bundle), "annotations": {"a": "b"}}
    assert moments.told("creating") == {**common, "status": "creating", "pid": os.getpid()}
    assert moments.told("running") == {**common, "status": "running", "pid": 5}
    assert moments.told("stopped") == {**common, "status": "stopped"}
    assert reclaim(moments.directory) == []
    assert moments.ran.count("poststop") == 1


async def test_a_hook_that_fails_fails_create_and_those_after_it_do_not_run(moments: Moments) -> None:
    hooks = moments.hooks(
        createRuntime=["echo no network >&2; exit 4", "echo never >>ran"], poststop=["echo poststop >>ran"]
    )
    with pytest.raises(HostError, match="createRuntime hook: /bin/sh ended with exit status 4: no network"):
        await soon(hooks.create_runtime(os.getpid()))
    await soon(hooks.deleted())
    assert moments.ran == ["poststop"]


async def test_where_create_failed_before_any_hook_there_is_nothing_to_undo(moments: Moments) -> None:
    hooks = moments.hooks(createRuntime=["true"], poststop=["echo poststop >>ran"])
    await soon(hooks.deleted())
    assert moments.ran == []
    assert reclaim(moments.directory) == []
    assert moments.ran == []


async def test_hooks_after_start_and_after_the_end_only_warn(moments: Moments, tmp_path: Path) -> None:
    hooks = moments.hooks(
        poststart=["echo late >&2; exit 1", "echo poststart >>ran"],
        poststop=["echo later >&2; exit 1", "echo poststop >>ran"],
    )
    await soon(hooks.create_runtime(os.getpid()))
    await soon(hooks.started(5))
    await soon(hooks.deleted())
    assert moments.ran == ["poststart", "poststop"]
    log = (tmp_path / "log").read_text()
    assert "poststart hook: /bin/sh ended with exit status 1: late" in log
    assert "poststop hook: /bin/sh ended with exit status 1: later" in log


async def test_a_create_that_is_given_up_ends_its_hook_before_those_after_the_end(moments: Moments) -> None:
    hooks = moments.hooks(
        createRuntime=["echo $$ >pid; sleep 1000"], poststop=["kill -0 $(cat pid) || echo gone >>ran"]
    )
    with same_fds():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(hooks.create_runtime(os.getpid()), 1)
        await soon(hooks.deleted())
    assert moments.ran == ["gone"]


async def test_a_hook_is_in_the_journal(moments: Moments) -> None:
    await soon(moments.hooks(createRuntime=["echo $$ >pid"]).create_runtime(os.getpid()))
    (entry,) = Journal(moments.directory).entries()
    assert entry["kind"] == "child"
    assert str(entry["marker"]).split()[0] == (moments.bundle / "pid").read_text().strip()


async def test_a_journal_that_takes_nothing_is_one_clear_error(moments: Moments) -> None:
    hooks = moments.hooks(createRuntime=["echo first >>ran"])
    moments.directory.rmdir()
    with pytest.raises(HostError, match=r"cannot run the container's hooks: .*journal"):
        await soon(hooks.create_runtime(os.getpid()))
