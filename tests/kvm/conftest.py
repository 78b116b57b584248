"""Fixtures of the lane with KVM: a Debian machine for each suite, and steps that build on each other.

A suite is a class whose tests are steps in the order in which they are written (tests/kvm/steps), on one machine, since
a boot takes its time. A step marked `needs(NAME...)` fails at once where one of those has not succeeded, and names it.
"""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import cast

import pytest

pytest.register_assert_rewrite("tests.kvm.steps")

from tests.kvm.harness import again, data  # noqa: E402 (what is registered for rewriting must not be imported yet)
from tests.kvm.harness.host import Host, Suite  # noqa: E402
from tests.kvm.harness.machine import Machine  # noqa: E402
from tests.kvm.harness.shell import CommandFailed  # noqa: E402
from tests.kvm.harness.times import Times  # noqa: E402

_SUCCEEDED = pytest.StashKey[dict[tuple[type, str], bool]]()
_CONSOLE_LINES = 60


def pytest_addoption(parser: pytest.Parser) -> None:
    """Ours."""
    parser.addoption("--suites-that-failed", action="store_true", help="only those in which a step failed last time")


def pytest_configure(config: pytest.Config) -> None:
    """Our marker."""
    config.addinivalue_line("markers", "needs(*names): the steps of the same suite that must have succeeded before")
    config.stash[_SUCCEEDED] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Every step has a deadline of its own; this one is for those without: twice what the slowest wait takes."""
    if config.getoption("--suites-that-failed"):
        failed = cast("dict[str, bool]", config.cache.get("cache/lastfailed", {}) if config.cache else {})
        config.hook.pytest_deselected(items=[item for item in items if not again.is_wanted(item.nodeid, failed)])
        items[:] = [item for item in items if again.is_wanted(item.nodeid, failed)]
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(600))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail what cannot be tried."""
    marker = item.get_closest_marker("needs")
    if marker is None or not isinstance(item, pytest.Function) or item.cls is None:
        return
    succeeded = item.config.stash[_SUCCEEDED]
    for name in marker.args:
        if not succeeded.get((item.cls, name)):
            state = "failed" if (item.cls, name) in succeeded else "was not run"
            pytest.fail(f"needs {name}, which {state}", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember which steps succeeded; show the machine's last words with one that did not."""
    report = yield
    if isinstance(item, pytest.Function) and item.cls is not None and hasattr(item.cls, "suite"):
        if report.when == "call" or report.failed:
            item.config.stash[_SUCCEEDED][(item.cls, item.name)] = report.passed
        host = item.funcargs.get("host") if report.when == "call" and report.failed else None
        if isinstance(host, Host):
            lines = host.machine.console.read_text(errors="replace").splitlines()[-_CONSOLE_LINES:]
            report.sections.append(("the machine's console", "\n".join(lines)))
            report.sections.append(("the machine's journal", _journal(host)))
    return report


def _journal(host: Host) -> str:
    """The last lines of it, or why there are none."""
    try:
        return host.run("journalctl -b --no-pager -n 80", check=False).stdout
    except CommandFailed as error:
        return str(error)


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The disk with both releases and what else a machine is given."""
    return data.make(tmp_path_factory.mktemp("kvm-data"))


@pytest.fixture(scope="class")
def host(request: pytest.FixtureRequest, disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The suite's machine, booted, with the disk mounted."""
    suite = request.cls.suite
    assert isinstance(suite, Suite)
    directory = data.build("tests/kvm/machine.sh", suite.name, suite.kind)
    qemu = data.build("deploy/release/runtime.sh") / "tree" / "bin" / "qemu-system-x86_64"
    with Machine(qemu, directory, disk, tmp_path_factory.mktemp(f"kvm-{suite.name}")) as machine:
        host = Host(suite, machine, Times(f"{suite.name}-{suite.kind}"))
        host.mount_data()
        yield host
