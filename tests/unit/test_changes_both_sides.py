"""What vminitd lists of a real ext4, and the shim makes of it on the host: the same tree, whatever was done in it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shim.changes.target import Kind
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
