"""Who runs it, and whom machines run as."""

import os

import pytest

from shim.check import rights
from tests.unit.shim.check.conftest import FakeHost, Say


async def test_root_and_somebody(fake: FakeHost, say: Say) -> None:
    fake.configure("runtime", user="nobody")
    assert [line.level for line in await say(rights.look)] == ["ok", "ok", "ok"]


async def test_not_root(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert [(line.level, line.mend) for line in await say(rights.look)] == [("failure", "sudo qemubox check")]


@pytest.mark.parametrize(
    ("user", "mend"), [("no-such-user-here", "useradd --system"), ("root", "name an unprivileged user")]
)
async def test_nobody_to_run_as(user: str, mend: str, fake: FakeHost, say: Say) -> None:
    fake.configure("runtime", user=user)
    found = (await say(rights.look)).told("runtime.user")
    assert found[0] == "failure"
    assert found[2].startswith(mend)


async def test_another_processor(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*real[:4], "aarch64")))
    assert (await say(rights.look)).told("processor")[0] == "failure"
