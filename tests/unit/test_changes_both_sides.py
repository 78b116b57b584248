"""What vminitd lists of a real ext4, and the shim makes of it on the host: the same tree, whatever was done in it."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shim.changes.target import Kind, Target
from shim.changes.write_back import Applied
from tests.unit.changes_world import Disk, disk, target, tree, write_back
from tests.unit.random_trees import Action, actions, perform
from vminitd.libc import MNT_DETACH, umount
from vminitd.rootfs import join

_SETTINGS = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def guest_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    with disk(tmp_path_factory.mktemp("disk")) as made:
        yield made


@pytest.fixture
def upper(guest_disk: Disk) -> Path:
    return fresh(guest_disk.root / "upper")


@pytest.fixture
def host(tmp_path: Path) -> Path:
    return fresh(tmp_path / "fs")


def fresh(directory: Path) -> Path:
    """An empty directory, with no record beside it."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for record in directory.parent.glob(f"{directory.name}.record*"):
        record.unlink()
    return directory


@_SETTINGS
@given(steps=st.lists(actions(raw=True), min_size=1, max_size=3), forgotten=st.booleans())
def test_an_empty_directory_gets_all_of_it(
    guest_disk: Disk, upper: Path, host: Path, steps: list[list[Action]], forgotten: bool
) -> None:
    fresh(upper)
    to = target(fresh(host), guest_disk.image)
    for todo in steps:
        perform(upper, todo)
        write_back(upper, to)
        assert tree(host) == tree(upper)
        if forgotten:
            to.record.unlink()
    assert write_back(upper, to).entries == len(tree(upper))
    assert tree(host) == tree(upper)


class Snapshot:
    """A snapshot's directory on the host, upon an image's layer, and guests that use it one after the other."""

    def __init__(self, guest_disk: Disk, place: Path, kind: Kind) -> None:
        self._disk = guest_disk
        self._kind = kind
        self._place = fresh(place)
        self._starts = 0
        self.layer = place / "layer"
        # On the same file system as the layer is, which an overlay of the two wants.
        self.directory = place / "fs"
        for directory in (self.layer, self.directory):
            directory.mkdir()

    @contextmanager
    def start(self) -> Iterator[tuple[Path, Callable[[], None]]]:
        """A guest's root file system, with a writable layer of its own, and what writes that back."""
        self._starts += 1
        below = self._place / f"below{self._starts}"
        # As the image that is made of it at the start: what is written back meanwhile is not in it.
        subprocess.run(["cp", "-a", str(self.directory), str(below)], check=True, timeout=30)
        has_content = bool(os.listdir(below))
        lower = [str(below)] if has_content or self._kind is Kind.PLAIN else []
        lower += [str(self.layer)] if self._kind is Kind.OVERLAY else []
        writable = fresh(self._disk.root / "writable")
        record = self._place / f"record{self._starts}"
        to = Target(self.directory, self._kind, not has_content, self._disk.image, record)
        with mounted(self._place / "guest", lower, writable) as root:
            yield root, lambda: expect_done(write_back(writable / "upper", to, [self.layer]))

    def view(self) -> dict[str, tuple[object, ...]]:
        """What the snapshot is, without any guest."""
        if self._kind is Kind.PLAIN:
            return tree(self.directory)
        with mounted(self._place / "host", [str(self.directory), str(self.layer)], None) as root:
            return tree(root)


def expect_done(done: Applied) -> None:
    assert done.entries > 0


@contextmanager
def mounted(at: Path, lower: list[str], writable: Path | None) -> Iterator[Path]:
    at.mkdir(exist_ok=True)
    join(str(at), lower, str(writable) if writable else "", whole=False)
    try:
        yield at
    finally:
        umount(str(at), MNT_DETACH)


@_SETTINGS
@given(
    kind=st.sampled_from(Kind),
    layer=actions(raw=False),
    starts=st.lists(st.lists(actions(raw=False), min_size=1, max_size=2), min_size=1, max_size=3),
)
def test_a_snapshot_is_what_its_guests_have_made_of_it(
    guest_disk: Disk, kind: Kind, layer: list[Action], starts: list[list[list[Action]]]
) -> None:
    """Whether it is started upon what earlier starts have left, or written back twice: seen through an overlay."""
    snapshot = Snapshot(guest_disk, guest_disk.root / "snapshot", kind)
    perform(snapshot.directory if kind is Kind.PLAIN else snapshot.layer, layer)
    for steps in starts:
        with snapshot.start() as (root, back):
            for todo in steps:
                perform(root, todo)
                back()
                assert snapshot.view() == tree(root)
