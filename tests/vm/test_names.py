"""Ids and namespaces of every shape that containerd lets through."""

import os
from collections.abc import Iterator

import pytest

from harness.box import Box
from harness.images import BUSYBOX

# containerd's limit is 76 characters (pkg/identifiers); its own tests go to 76 + 64: too long for a socket's path.
_LONG_NAMESPACE = ("n-" + "0123456789-" * 7)[:75] + "n"
_LONG_ID = ("i." + "0123456789_" * 6)[:63] + "i"


def _own(container: str) -> str:
    """One of the same shape for each worker: control groups of one name are one, whosever they are. For ten workers."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return container[:-1] + chr(ord(container[-1]) + worker)


@pytest.mark.every_containerd
@pytest.mark.parametrize("container", ["a", "0", "a.b-c_d", "UPPER.case", "a" * 76])
def test_odd_ids(box: Box, container: str) -> None:
    assert box.run("echo", "here", container=_own(container)).text == "here"


@pytest.mark.every_containerd
@pytest.mark.parametrize("container", ["a b", "-a", "a/b", "../a", "x" * 77])
def test_ids_that_containerd_refuses_leave_nothing(box: Box, container: str) -> None:
    assert box.run("true", container=container).code != 0


@pytest.fixture
def namespaces(box: Box) -> Iterator[tuple[str, str]]:
    """Two namespaces with the image, the first with as long a name as containerd allows."""
    names = (_LONG_NAMESPACE, "other")
    for name in names:
        box.containerd.ctr("namespaces", "create", name).checked()
        box.containerd.import_image(BUSYBOX, namespace=name)
    yield names
    for name in names:
        box.containerd.remove_image(BUSYBOX, namespace=name)
        box.containerd.ctr("namespaces", "rm", name).checked()


@pytest.mark.every_containerd
def test_longest_namespace_and_id(box: Box, namespaces: tuple[str, str]) -> None:
    assert (len(namespaces[0]), len(_LONG_ID)) == (76, 64)
    result = box.run("hostname", container=_own(_LONG_ID), namespace=namespaces[0])
    assert (result.code, bool(result.text)) == (0, True)


def test_one_id_in_two_namespaces(box: Box, namespaces: tuple[str, str]) -> None:
    """Both run at the same time; the end of one is not the other's."""
    container = _own("twin")
    for number, namespace in enumerate(namespaces):
        box.start("sh", "-c", f"sleep 1000; exit {number}", container=container, namespace=namespace)
    first, second = namespaces
    box.kill(container, namespace=first).checked()
    box.wait_stopped(container, namespace=first)
    assert box.status(container, namespace=second) == "RUNNING"
    box.delete_task(container, namespace=first).checked()
    box.remove(container, namespace=first).checked()
    assert box.status(container, namespace=second) == "RUNNING"
    box.kill(container, namespace=second).checked()
    box.wait_stopped(container, namespace=second)
    box.delete_task(container, namespace=second).checked()
    box.remove(container, namespace=second).checked()
