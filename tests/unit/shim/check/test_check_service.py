"""The warm parent: a real one, none, and one of another installation."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shim.check import service as area
from shim.check.host import Host
from shim.check.line import Line, Report
from shim.claim import LOCK_NAME, sign
from shim.config import Config
from tests.unit.shim.check.conftest import FakeHost, Say
from tests.unit.shim.program import Host as Place


async def _look(path: str | Path) -> Line:
    report = Report("service")
    await area.look(Host(Config(), environ={"QEMUBOX_SERVICE": str(path)}), report)
    (line,) = report.lines
    return line


@pytest.mark.usefixtures("service")
async def test_one_that_runs_is_of_this_code(host: Place) -> None:
    line = await _look(host.service)
    assert (line.level, line.mend) == ("ok", "")
    assert "of this code" in line.found


async def test_none(tmp_path: Path) -> None:
    line = await _look(tmp_path / "service.sock")
    assert line.level == "warning"
    assert line.found.startswith("does not run")


async def test_none_that_is_asked() -> None:
    assert (await _look("")).level == "ok"


@pytest.fixture
def held(fake: FakeHost) -> Iterator[FakeHost]:
    """Somebody has the lock, and signed it as process 4711."""
    lock = fake.put(f"/run/qemubox/{LOCK_NAME}")
    fd = os.open(lock, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    sign(fd, 4711)
    yield fake
    os.close(fd)


def _listens(fake: FakeHost, flags: str) -> None:
    line = f"0000: 00000002 00000000 {flags} 0001 01 12345 /run/qemubox/service.sock\n"
    fake.put("/proc/net/unix", f"Num RefCount Protocol Flags Type St Inode Path\n0000: 2 0 0 1 1 9\n{line}")


def _maps(fake: FakeHost, pid: str, site: str) -> None:
    fake.put(
        f"/proc/{pid}/maps", f"7f00-7f01 r-xp 00000000 08:01 42    {site}/google/_upb/_message.so\n7f02-7f03 r 0 0 0\n"
    )


async def test_one_that_has_stopped_listening(held: FakeHost, say: Say) -> None:
    _listens(held, "00000000")
    (line,) = await say(area.look)
    assert line.level == "warning"
    assert "nobody listens" in line.found


@pytest.mark.parametrize(
    ("site", "level"),
    [
        ("/installed/lib/python3.11/site-packages", "ok"),
        ("/opt/ours/lib/python3.11/site-packages", "ok"),
        ("/usr/local/lib/qemubox/venv-0123/lib/python3.11/site-packages", "warning"),
    ],
)
async def test_whose_code_it_is(
    site: str, level: str, held: FakeHost, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where our packages are, or the extension modules that we have, too."""
    monkeypatch.setattr(area, "packages", lambda: "/installed/lib/python3.11/site-packages")
    _listens(held, "00010000")
    _maps(held, "4711", site)
    _maps(held, "self", "/opt/ours/lib/python3.11/site-packages")
    held.put("/run/systemd/system/x")
    (line,) = await say(area.look)
    assert line.level == level
    if level == "warning":
        assert site in line.found
        assert line.mend == "systemctl reload-or-restart qemubox"
