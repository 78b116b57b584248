"""The store of templates: whole or not there, made once, and never trusted further than it can be checked."""

import asyncio
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shim.errors import HostError, MachineError, NotFoundError, TemplateError
from shim.journal import Journal
from shim.rootfs import flock
from shim.template.memory import MIB
from shim.template.store import METADATA, STATE, Made, Store, name_of
from tests.unit.shim.observe import Spawn

FINGERPRINT = "a" * 64
NAME = name_of(FINGERPRINT)
CONTENT = b"state of a machine" * 1000


class Maker:
    """Stands for a machine that is booted and saved."""

    def __init__(self, content: bytes = CONTENT) -> None:
        self.content = content
        self.calls = 0
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.started = asyncio.Event()

    async def __call__(self, directory: Path, fd: int) -> Made:
        self.calls += 1
        (directory / "console").write_text("hello")
        os.write(fd, self.content)
        self.started.set()
        await self.go_on.wait()
        return Made("7.2.0", 4)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "templates"


@pytest.fixture
def store(directory: Path) -> Store:
    return Store(directory, limit_mib=256)


async def build(store: Store, maker: Maker, name: str = NAME, *, again: bool = False) -> None:
    await store.build(name, maker, 10, again=again)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_without_a_directory_there_is_none(store: Store) -> None:
    assert store.entries() == []
    with pytest.raises(NotFoundError):
        store.open(NAME)
    with pytest.raises(NotFoundError):
        store.remove(NAME)


async def test_what_was_made_is_found_open_for_reading_only(store: Store, directory: Path) -> None:
    await build(store, Maker())
    template = store.open(NAME)
    assert os.pread(template.fd, 1 << 20, 0) == CONTENT
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(template.fd, b"x")
    template.close()
    assert (template.metadata.fingerprint, template.metadata.qemu_version) == (FINGERPRINT, "7.2.0")
    assert (template.metadata.size, template.metadata.memory_size) == (len(CONTENT), 4)
    assert template.metadata.stored >= len(CONTENT)
    assert store.verify(NAME) == template.metadata
    assert names(directory) == [NAME]
    assert names(directory / NAME) == [STATE, METADATA]
    assert [path.stat().st_mode & 0o077 for path in (directory, directory / NAME, directory / NAME / STATE)] == [0] * 3


async def test_a_good_one_is_not_made_again_unless_asked_to(store: Store) -> None:
    maker = Maker()
    await build(store, maker)
    await build(store, maker)
    assert maker.calls == 1
    maker.content = b"other"
    await build(store, maker, again=True)
    assert maker.calls == 2
    assert store.verify(NAME).size == 5


async def test_made_twice_at_once_it_is_made_once(store: Store, directory: Path) -> None:
    first, second = Maker(), Maker()
    first.go_on.clear()
    making = asyncio.create_task(build(store, first))
    await first.started.wait()
    with pytest.raises(NotFoundError):
        store.open(NAME)
    waiting = asyncio.create_task(build(Store(directory, limit_mib=256), second))
    await asyncio.sleep(0)
    first.go_on.set()
    await asyncio.gather(making, waiting)
    assert (first.calls, second.calls) == (1, 0)
    assert names(directory) == [NAME]


async def test_who_waits_too_long_for_another_is_told(store: Store, directory: Path) -> None:
    directory.mkdir()
    fd = await flock.exclusive(directory / f".{NAME}.lock", 1)
    with pytest.raises(HostError, match=r"another process makes template aaaaaaaaaaaa for more than 0\.1 s"):
        await store.build(NAME, Maker(), 0.1)
    os.close(fd)


def cut(state: Path) -> None:
    os.truncate(state, 100)


def change(state: Path) -> None:
    with state.open("r+b") as file:
        file.write(b"X")


def replace(state: Path) -> None:
    """As a copy that has the same content and says that it has the same age."""
    copy = state.with_name("copy")
    copy.write_bytes(state.read_bytes())
    copy.chmod(0o600)
    os.utime(copy, ns=(state.stat().st_atime_ns, state.stat().st_mtime_ns))
    copy.rename(state)


def link(state: Path) -> None:
    state.rename(state.with_name("elsewhere"))
    state.symlink_to("elsewhere")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, "has 100 bytes, not 18000"),
        (change, "was changed after it was made"),
        (replace, "was changed after it was made"),
        (link, "Too many levels of symbolic links"),
        (lambda state: state.chmod(0o660), "may be read or written by others than root"),
        (Path.unlink, "a part of it is missing"),
        (lambda state: (state.parent / METADATA).unlink(), "a part of it is missing"),
        (lambda state: (state.parent / METADATA).write_text("{"), "its metadata is no JSON"),
        (lambda state: (state.parent / METADATA).write_text('{"format": 99}'), "its metadata is not of format 2"),
        (lambda state: (state.parent / METADATA).write_text('{"format": 2}'), "other fields than it should"),
    ],
)
async def test_a_damaged_one_is_told_and_made_anew(
    store: Store, directory: Path, damage: Callable[[Path], object], reason: str
) -> None:
    await build(store, Maker())
    damage(directory / NAME / STATE)
    with pytest.raises(TemplateError, match=reason):
        store.open(NAME)
    (entry,) = store.entries()
    assert (entry.name, entry.metadata) == (NAME, None)
    assert reason in entry.problem
    await build(store, Maker())
    assert store.verify(NAME).size == len(CONTENT)


async def test_verify_reads_it_all(store: Store, directory: Path) -> None:
    """A disk that gives back other bytes than were written changes no time of the file: only reading shows it."""
    await build(store, Maker())
    path = directory / NAME / METADATA
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sha256": "0" * 64}))
    store.open(NAME).close()
    with pytest.raises(TemplateError, match="damaged"):
        store.verify(NAME)


async def test_one_under_another_s_name_is_not_used(store: Store, directory: Path) -> None:
    await build(store, Maker())
    (directory / NAME).rename(directory / name_of("b" * 64))
    with pytest.raises(TemplateError, match="that of another"):
        store.open(name_of("b" * 64))
    with pytest.raises(TemplateError, match="not the name of a template"):
        name_of(FINGERPRINT, "../../etc")


async def test_removed_while_it_is_in_use(store: Store) -> None:
    await build(store, Maker())
    template = store.open(NAME)
    store.remove(NAME)
    assert os.pread(template.fd, 1 << 20, 0) == CONTENT
    template.close()
    with pytest.raises(NotFoundError):
        store.open(NAME)


@pytest.mark.parametrize(
    ("failure", "raised"),
    [(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), HostError), (MachineError("it died"), MachineError)],
)
async def test_a_failure_leaves_nothing_and_what_was_there(
    store: Store, directory: Path, failure: Exception, raised: type[Exception]
) -> None:
    """A full disk, a machine that dies: the template that was there stays."""

    async def fail(_directory: Path, fd: int) -> Made:
        os.write(fd, b"half")
        raise failure

    with pytest.raises(raised, match=r"No space left|it died"):
        await store.build(NAME, fail, 10)
    assert names(directory) == []
    await build(store, Maker())
    with pytest.raises(raised):
        await store.build(NAME, fail, 10, again=True)
    assert store.verify(NAME).size == len(CONTENT)


async def test_a_maker_that_is_cancelled_leaves_nothing(store: Store, directory: Path) -> None:
    maker = Maker()
    maker.go_on.clear()
    making = asyncio.create_task(build(store, maker))
    await maker.started.wait()
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert names(directory) == []


async def test_what_a_killed_maker_left_is_swept_with_its_processes(
    store: Store, directory: Path, spawn: Spawn, tmp_path: Path
) -> None:
    other = name_of("c" * 64)
    draft = directory / f".{other}.new"
    (draft / "whole").mkdir(parents=True)
    (draft / "whole" / STATE).write_bytes(b"half")
    marker = f"left-by-a-killed-maker-{tmp_path.name}"
    Journal(draft).record("process", marker=marker)
    child = spawn("import sys; sys.stdin.read()", marker)
    (directory / f".{NAME}.123.old").mkdir()
    await build(store, Maker())
    assert names(directory) == [NAME]
    assert child.wait(10) != 0


async def test_what_another_makes_right_now_is_not_swept(store: Store, directory: Path) -> None:
    maker = Maker()
    maker.go_on.clear()
    other = name_of(FINGERPRINT, "other")
    making = asyncio.create_task(build(store, maker, other))
    await maker.started.wait()
    await build(store, Maker())
    maker.go_on.set()
    await making
    assert names(directory) == [NAME, other]


async def test_templates_of_other_machines_go(store: Store, directory: Path) -> None:
    stale = name_of("b" * 64)
    await build(store, Maker(), stale)
    await build(store, Maker())
    assert names(directory) == [NAME]


async def test_the_oldest_go_above_the_limit(directory: Path) -> None:
    """Three namespaces' templates of which two fit."""
    store = Store(directory, limit_mib=2)
    maker = Maker(bytes(MIB))
    for age, namespace in enumerate(("one", "two", "three")):
        name = name_of(FINGERPRINT, namespace)
        await build(store, maker, name)
        path = directory / name / METADATA
        path.write_text(json.dumps(json.loads(path.read_text()) | {"built_at": 1000 + age}))
    assert names(directory) == [name_of(FINGERPRINT, "three"), name_of(FINGERPRINT, "two")]


async def test_one_that_is_larger_than_the_limit_stays_alone(directory: Path) -> None:
    store = Store(directory, limit_mib=0)
    await build(store, Maker(), name_of(FINGERPRINT, "one"))
    await build(store, Maker(), name_of(FINGERPRINT, "two"))
    assert names(directory) == [name_of(FINGERPRINT, "two")]
