"""systemd's units, by a systemctl that says what a test wants."""

import pytest

from shim.check import units
from tests.unit.shim.check.conftest import FakeHost, Say


def _systemctl(fake: FakeHost, active: str, result: str, enabled: str) -> None:
    fake.put("/run/systemd/system/x")
    fake.put("/etc/systemd/system/qemubox.service")
    fake.program(
        "systemctl",
        f'[ "$1 $3" = "show qemubox.service" ] || exit 7\n'
        f"printf 'Result={result}\\nActiveState={active}\\nSubState=x\\nUnitFileState={enabled}\\n'",
    )


async def test_no_systemd(say: Say) -> None:
    (line,) = await say(units.look)
    assert line.level == "ok"
    assert "qemubox gc" in line.found


async def test_no_unit(fake: FakeHost, say: Say) -> None:
    fake.put("/run/systemd/system/x")
    assert [line.level for line in await say(units.look)] == ["warning"]


@pytest.mark.parametrize(
    ("active", "result", "enabled", "level", "mend"),
    [
        ("active", "success", "enabled", "ok", ""),
        ("inactive", "success", "enabled", "warning", "systemctl enable --now qemubox.service"),
        ("active", "success", "disabled", "warning", "systemctl enable qemubox.service"),
        ("failed", "exit-code", "enabled", "warning", "journalctl -u qemubox.service -n 20"),
        ("activating", "exit-code", "enabled", "warning", "journalctl -u qemubox.service -n 20"),
    ],
)
async def test_states(active: str, result: str, enabled: str, level: str, mend: str, fake: FakeHost, say: Say) -> None:
    _systemctl(fake, active, result, enabled)
    (line,) = await say(units.look)
    assert (line.what, line.level) == ("qemubox.service", level)
    assert line.mend.startswith(mend)


async def test_a_unit_that_runs_once_need_not_be_active(fake: FakeHost, say: Say) -> None:
    _systemctl(fake, "inactive", "success", "enabled")
    (fake.root / "etc/systemd/system/qemubox.service").rename(fake.root / "etc/systemd/system/qemubox-gc.service")
    fake.program("systemctl", "printf 'Result=success\\nActiveState=inactive\\nUnitFileState=enabled\\n'")
    assert [line.level for line in await say(units.look)] == ["ok"]


async def test_no_systemctl(fake: FakeHost, say: Say) -> None:
    _systemctl(fake, "active", "success", "enabled")
    (fake.bin / "systemctl").unlink()
    assert [line.level for line in await say(units.look)] == ["warning"]
