"""How `qemubox cp` finds a shim: by id, by nerdctl's name, by the beginning of an id."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shim.copy.address import FILE_NAME, Address, find, shims, write
from shim.errors import HostError, NotFoundError, SpecError


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Three containers, two of them with one id in two namespaces."""
    for key, namespace, container, name in (
        ("k1", "default", "abcdef0123", "web"),
        ("k2", "other", "abcdef0123", ""),
        ("k3", "default", "abcd999999", "abcdef0123-not"),
    ):
        directory, bundle = tmp_path / "vm" / key, tmp_path / "bundles" / key
        directory.mkdir(parents=True)
        bundle.mkdir(parents=True)
        annotations = {"annotations": {"nerdctl/name": name}} if name else {}
        (bundle / "config.json").write_text(json.dumps(annotations))
        write(directory, Address(namespace, container, str(bundle), f"/run/s/{key}"))
    return tmp_path


@pytest.mark.parametrize(
    ("container", "namespace", "socket"),
    [
        ("abcdef0123", "other", "k2"),
        ("abcdef0123", "default", "k1"),
        ("web", "", "k1"),
        ("abcdef", "other", "k2"),
        ("abcd9", "", "k3"),
    ],
)
def test_one_that_is_there(state: Path, container: str, namespace: str, socket: str) -> None:
    assert find(state, container, namespace).socket == f"/run/s/{socket}"


def test_what_fits_several(state: Path) -> None:
    for container, namespace in (("abcdef0123", ""), ("abcd", "default")):
        with pytest.raises(SpecError, match="more than one container"):
            find(state, container, namespace)


@pytest.mark.parametrize(("container", "namespace"), [("abc", ""), ("web", "other"), ("nothing", "")])
def test_what_fits_none(state: Path, container: str, namespace: str) -> None:
    with pytest.raises(NotFoundError, match="has no machine"):
        find(state, container, namespace)


def test_files_of_others_and_none(state: Path) -> None:
    (state / "bundles/k1/config.json").unlink()
    with pytest.raises(NotFoundError):
        find(state, "web")
    (state / "vm/k3/address.json").write_text("{}")
    with pytest.raises(HostError, match="cannot be read"):
        find(state, "web")


def test_an_empty_word_is_no_container(state: Path) -> None:
    """Of these only one has a name of nerdctl's in its namespace; the other, without one, is not meant by ""."""
    for namespace in ("", "default", "other"):
        with pytest.raises(SpecError, match="no container is named"):
            find(state, "", namespace)


def test_whoever_looks_meanwhile_finds_it_whole_or_not_at_all(tmp_path: Path) -> None:
    directory = tmp_path / "vm" / "k1"
    directory.mkdir(parents=True)

    def write_often() -> None:
        for _ in range(300):
            write(directory, Address("default", "box", "/b", "/s"))
            (directory / FILE_NAME).unlink()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write_often)
        while not writing.done():
            assert {each.address.id for each in shims(tmp_path)} <= {"box"}
        writing.result()
