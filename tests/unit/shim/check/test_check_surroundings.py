"""Control groups, security modules, clock and memory, as files tell of them."""

import pytest

from shim.check import surroundings
from shim.check.line import Report
from tests.unit.shim.check.conftest import FakeHost, Say

_MEMORY = "MemTotal:       24684096 kB\nMemFree: 1 kB\nMemAvailable:   {} kB\n"


def _mounts(*kinds: str) -> str:
    return "proc /proc proc rw 0 0\n" + "".join(f"x /sys/fs/cgroup/{kind} {kind} rw 0 0\n" for kind in kinds)


@pytest.mark.parametrize(
    ("kinds", "level", "words"),
    [
        (("cgroup2",), "ok", "version 2"),
        (("cgroup", "cgroup2"), "ok", "version 1, or both"),
        (("cgroup",), "ok", "version 1, or both"),
        ((), "warning", "none are mounted"),
    ],
)
async def test_control_groups(kinds: tuple[str, ...], level: str, words: str, fake: FakeHost, say: Say) -> None:
    fake.put("/proc/self/mounts", _mounts(*kinds))
    found = (await say(surroundings.look)).told("control groups")
    assert found[0] == level
    assert found[1].startswith(words)


async def test_no_security_modules(fake: FakeHost, say: Say) -> None:
    assert (await say(surroundings.look)).told("security modules")[:2] == ("ok", "neither SELinux nor AppArmor (none)")


@pytest.mark.parametrize(("enforce", "level"), [("1", "warning"), ("0", "ok")])
async def test_selinux(enforce: str, level: str, fake: FakeHost, say: Say) -> None:
    fake.put("/sys/fs/selinux/enforce", enforce)
    said = await say(surroundings.look)
    assert said.told("SELinux")[0] == level
    assert not [line for line in said if line.what == "security modules"]


@pytest.mark.parametrize(
    ("scope", "level", "mend"),
    [("1\n", "ok", ""), ("0\n", "warning", "sysctl -w kernel.yama.ptrace_scope=1"), (None, "warning", "user_ids")],
)
async def test_tracing(scope: str | None, level: str, mend: str, fake: FakeHost, say: Say) -> None:
    assert (await say(surroundings.look)).told("user ids")[0] == "ok"
    fake.configure("runtime", user_ids="one")
    if scope is not None:
        fake.put("/proc/sys/kernel/yama/ptrace_scope", scope)
    found = (await say(surroundings.look)).told("ptrace_scope")
    assert found[0] == level
    assert mend in found[2]


@pytest.mark.parametrize(
    ("profile", "level"), [("unconfined\n", "ok"), ("", "ok"), ("docker-default (enforce)\n", "warning")]
)
async def test_apparmor(profile: str, level: str, fake: FakeHost, say: Say) -> None:
    fake.put("/sys/module/apparmor/parameters/enabled", "Y\n")
    fake.put("/proc/self/attr/current", profile)
    assert (await say(surroundings.look)).told("AppArmor")[0] == level


@pytest.mark.parametrize(("available_mib", "level"), [(8000, "ok"), (639, "warning"), (127, "failure")])
async def test_memory(available_mib: int, level: str, fake: FakeHost, say: Say) -> None:
    """Of the defaults: 128 MiB for the machine and 512 for the container."""
    fake.put("/proc/meminfo", _MEMORY.format(available_mib * 1024))
    assert (await say(surroundings.look)).told("memory")[0] == level


async def test_memory_that_nobody_tells_of(say: Say) -> None:
    assert (await say(surroundings.look)).told("memory")[0] == "warning"


async def test_strict_accounting_is_told(fake: FakeHost, say: Say) -> None:
    fake.put("/proc/sys/vm/overcommit_memory", "2\n")
    fake.put("/proc/meminfo", _MEMORY.format(8000 * 1024))
    assert (await say(surroundings.look)).told("overcommit")[::2] == ("warning", "sysctl -w vm.overcommit_memory=0")


@pytest.mark.parametrize(
    ("now", "source", "level"), [(0.0, "tsc", "warning"), (4e9, "tsc", "ok"), (4e9, "hpet", "warning")]
)
def test_the_clock(now: float, source: str, level: str, fake: FakeHost) -> None:
    fake.put("/sys/devices/system/clocksource/clocksource0/current_clocksource", f"{source}\n")
    report = Report("host")
    surroundings._clock(fake.host, report, now)
    assert report.lines[0].level == level
