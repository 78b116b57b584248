"""Layers that are seen with other owners, by the real kernel: needs root, leaves no mount and no process."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from vminitd import owners
from vminitd.disks import Layer
from vminitd.errors import MountError, RequestError
from vminitd.libc import MNT_DETACH, mount, replace_with_mapped, umount
from vminitd.owners import Owners, user_namespace
from vminitd.rootfs import Plan, Rootfs

_OWNERS = Owners("0 100000 1000\n1000 200000 10", "0 300000 65536")
_LAYER = Layer("x", 0, "erofs", ())


@pytest.fixture
def layer(tmp_path: Path) -> Iterator[str]:
    """A file system with a file of root's, and one of each of two others."""
    target = tmp_path / "layer"
    target.mkdir()
    mount("tmpfs", str(target), "tmpfs", 0, "")
    for name, user, group in (("root", 0, 0), ("other", 1005, 5), ("beyond", 5000, 0)):
        (target / name).touch()
        os.chown(target / name, user, group)
    yield str(target)
    umount(str(target), MNT_DETACH)


def test_a_layer_is_seen_with_the_owners_of_a_user_namespace(layer: str) -> None:
    with user_namespace(_OWNERS) as namespace:
        replace_with_mapped(layer, namespace)
    seen = {name: os.stat(f"{layer}/{name}") for name in os.listdir(layer)}
    assert (seen["root"].st_uid, seen["root"].st_gid) == (100000, 300000)
    assert (seen["other"].st_uid, seen["other"].st_gid) == (200005, 300005)
    assert seen["beyond"].st_uid == 65534  # nobody
    assert psutil.Process().children() == []


@pytest.mark.parametrize("given", [Owners("nonsense", "0 0 1"), Owners("0 0 1", ""), Owners("0 5 9\n3 50 2", "0 0 1")])
def test_maps_that_the_kernel_refuses(given: Owners) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="Invalid argument"), user_namespace(given):
        pass
    assert os.listdir("/proc/self/fd") == before
    assert psutil.Process().children() == []


def test_a_process_that_could_not_have_one_and_has_been_reaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told is why there is none, and not that its process is gone."""

    def refuse() -> None:
        raise OSError(errno.ENOSPC, "")

    def kill_what_is_gone(pid: int, _number: int) -> None:
        os.waitpid(pid, 0)
        raise ProcessLookupError

    monkeypatch.setattr(owners, "unshare_user", refuse)
    monkeypatch.setattr(os, "kill", kill_what_is_gone)
    with pytest.raises(OSError, match="No space left"), user_namespace(_OWNERS):
        pass


def test_the_error_names_the_maps(tmp_path: Path) -> None:
    rootfs = Rootfs(str(tmp_path))
    with pytest.raises(MountError, match="cannot give the layers the owners 'x' and 'y': Invalid argument"):
        rootfs._give(Owners("x", "y"), [])


def test_no_more_layers_than_there_are() -> None:
    Plan((_LAYER,), None, False, 1, _OWNERS).check()
    with pytest.raises(RequestError, match="2 of 1 layers are to have other owners"):
        Plan((_LAYER,), None, False, 2, _OWNERS).check()
