"""Fixtures of the end-to-end tests: real containerds, real QEMU, and runc beside it.

`box` runs a test with each runtime, `vm` with qemubox alone, `runc` with that, on each containerd. Both
compare what exists on the host before and after the test, whatever the test is about.
Nothing is skipped: a part that is not there fails the tests that need it and is named.
`start`, of test_vm_*.py, starts a machine without any containerd.
"""

import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Literal

import pytest
from xdist.remote import Producer

from harness.box import RUNTIMES, Box
from harness.cell import Cell
from harness.containerd import Containerd
from harness.flavours import FLAVOUR_NAMES, flavour
from harness.images import BUSYBOX, NETWORK
from harness.machine import parts as parts
from harness.machine import start as start
from harness.machine import work as work
from harness.matrix import Groups, at_every_change, runs, share_out
from harness.qemubox import Qemubox
from harness.traces import assert_nothing_new, take

_LOG_OFFSET = pytest.StashKey[tuple[Containerd, int]]()
_FAILED = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--runtime` and `--containerd` narrow a run down by hand."""
    parser.addoption("--runtime", choices=[*RUNTIMES], action="append", help="only this runtime")
    parser.addoption("--containerd", choices=[*FLAVOUR_NAMES], action="append", help="only this containerd")
    parser.addoption("--matrix", action="store_true", help="every test on each containerd; else see harness/matrix.py")
    parser.addoption("--state-machine", type=int, default=0, metavar="N", help="N random sequences of calls")
    parser.addoption("--image-kills", type=int, default=1, metavar="N", help="N kills of QEMU while a container writes")
    parser.addoption("--freed-mib", type=int, default=256, metavar="N", help="N MiB are written, and given back")
    parser.addoption("--network-runs", type=int, default=5, metavar="N", help="N containers with a network in a row")
    parser.addoption("--network-at-once", type=int, default=4, metavar="N", help="N containers with a network at once")
    parser.addoption("--in-a-row", type=int, default=10, metavar="N", help="N containers, one after the other")
    parser.addoption("--clones", type=int, default=8, metavar="N", help="N clones of a template are compared")
    parser.addoption("--moments", type=int, default=5, metavar="N", help="N moments of Create to kill a shim at")
    parser.addoption("--distros", action="store_true", help="every distribution on every snapshotter")
    parser.addoption("--without-service", action="store_true", help="every shim is a fork of its own `start`")


def pytest_configure(config: pytest.Config) -> None:
    """The markers of ours."""
    config.addinivalue_line("markers", "on(*names): the containerds that the test is for; default all")
    config.addinivalue_line("markers", "every_containerd: it runs on each containerd at every change")
    config.addinivalue_line("markers", "release: it runs before a release, by `task test:all`, and where it is named")
    config.addinivalue_line("markers", "each_case: all its cases run at every change, not only the first and the last")
    config.addinivalue_line("markers", "keeps_image: a writable image is kept, until `qemubox gc` removes it")
    config.addinivalue_line("markers", "newest_runc: the test is for runc's shim of the newest containerd, too")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test on each containerd that it is for, and `box` with each runtime."""
    config = metafunc.config
    if "containerd" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("on")
        flavours = marker.args if marker else FLAVOUR_NAMES
        wanted = config.getoption("containerd") or FLAVOUR_NAMES
        chosen = [name for name in flavours if name in wanted]
        metafunc.parametrize("containerd", chosen, indirect=True, scope="session", ids=[f"c{name}" for name in chosen])
    if "runtime" in metafunc.fixturenames:
        runtimes = config.getoption("runtime") or [*RUNTIMES]
        names = ["qemubox"] if {"vm", "vm_theatre"} & {*metafunc.fixturenames} else [*RUNTIMES]
        names = ["runc"] if "runc" in metafunc.fixturenames else names
        scope: Literal["module"] | None = "module" if "theatre" in metafunc.fixturenames else None
        metafunc.parametrize("runtime", [name for name in names if name in runtimes], scope=scope)


@pytest.hookimpl(optionalhook=True)  # there are no workers where xdist is switched off
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Groups:
    """How workers share the tests out."""
    return Groups(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What does not run at every change, or was not asked for, is deselected, and counted as that; nothing is skipped.

    runc's shim of 2.3.4 now and then loses the output of a short process (one of a hundred, eight at once): on the
    newest containerd runc runs only where its answers are that shim's, or when it is asked for.
    """
    narrowed = bool(config.getoption("containerd") or config.getoption("runtime"))
    matrix = config.getoption("matrix") or narrowed
    named = any("test_" in argument for argument in config.args)
    chosen = [item for item in items if "NOTSET" not in item.name]  # no parameter was left by the options
    if not config.getoption("runtime"):
        chosen = [item for item in chosen if runs(item, matrix=matrix)]
    if not matrix and not named:
        chosen = at_every_change(chosen)
    if len(chosen) < len(items):
        config.hook.pytest_deselected(items=[*{*items} - {*chosen}])
        items[:] = chosen
    share_out(items)


@pytest.fixture(scope="session")
def archives() -> Iterator[Path]:
    """Where the images' archives are kept during the run."""
    directory = Path(tempfile.mkdtemp(prefix="qemubox-images-", dir="/var/tmp"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def containerd(request: pytest.FixtureRequest, archives: Path) -> Iterator[Containerd]:
    """A running containerd with the busybox image, in a cell of its own."""
    chosen = flavour(request.param)
    # On a disk: an overlay's upper directory cannot be on a tmpfs of every kernel, nor are layers small.
    directory = Path(tempfile.mkdtemp(prefix="qemubox-test-", dir="/var/tmp"))
    directory.chmod(0o711)
    try:
        with Cell(directory) as cell:
            running = Containerd(chosen, cell, Qemubox(directory, cell), archives)
            running.start()
            running.import_image(BUSYBOX)
            yield running
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def network_image(containerd: Containerd) -> str:
    """The image with programs for networks, imported."""
    containerd.import_image(NETWORK)
    return NETWORK


@pytest.fixture
def box(request: pytest.FixtureRequest, containerd: Containerd, runtime: str) -> Iterator[Box]:
    """One runtime on one containerd. Fails when a part is missing, or the test leaves anything behind."""
    if runtime == "qemubox":
        containerd.qemubox.install()
        if not containerd.service.running and not request.config.getoption("without_service"):
            containerd.service.start()
    request.node.stash[_LOG_OFFSET] = (containerd, containerd.log_size())
    box = Box(containerd, runtime)
    before = take(containerd)
    yield box
    try:
        if not request.node.stash.get(_FAILED, False):  # a test that failed half way has not cleaned up
            keeps = request.node.get_closest_marker("keeps_image") is not None
            assert_nothing_new(containerd, before, by_runc=not box.is_vm, after_gc=keeps and box.is_vm)
    finally:
        box.remove_all()


@pytest.fixture
def vm(box: Box) -> Box:
    """qemubox alone: for what only a virtual machine can show, or get wrong."""
    return box


@pytest.fixture
def runc(box: Box) -> Box:
    """runc alone: for what is ours, and no matter of the runtime."""
    return box


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what containerd and its shims logged during the test."""
    report = yield
    if report.failed and _LOG_OFFSET in item.stash:
        containerd, offset = item.stash[_LOG_OFFSET]
        item.stash[_FAILED] = True
        report.sections.append((f"containerd {containerd.flavour.name}", containerd.log_tail(offset)))
    return report
