"""The arguments of `qemubox cp` and docker cp's table. Pure, but for names below the working directory."""

import os

import pytest

from shim.copy.place import Landing, Place, There, check, landing, parse
from shim.errors import SpecError


@pytest.mark.parametrize(
    ("argument", "container", "path"),
    [
        ("c:/a", "c", b"/a"),
        ("c:a:b", "c", b"a:b"),
        ("/a:b", "", b"/a:b"),
        ("./a:b", "", b"./a:b"),
        ("../a:b", "", b"../a:b"),
        ("a/b:c", "", b"a/b:c"),
        (":a", "", b":a"),
        ("-", "", b"-"),
        ("a", "", b"a"),
    ],
)
def test_what_names_a_container(argument: str, container: str, path: bytes) -> None:
    assert parse(argument) == Place(container, path)


def test_exactly_one_of_them_does() -> None:
    check(parse("c:/a"), parse("b"))
    for source, destination in (("a", "b"), ("c:/a", "d:/b"), ("c:/a", ""), ("-", "-")):
        with pytest.raises(SpecError):
            check(parse(source), parse(destination))
    with pytest.raises(SpecError):
        parse("c:")


@pytest.mark.parametrize(
    ("path", "clean", "name", "contents", "directory"),
    [
        ("a", b"/a", b"a", False, False),
        ("/a/b/", b"/a/b", b"b", False, True),
        ("/a/b/.", b"/a/b", b"b", True, True),
        ("//a//b/../c", b"/a/c", b"c", False, False),
        ("/../..", b"/", b"", False, False),
        ("/", b"/", b"", True, True),
        (".", b"/", b"", True, True),
        ("/a/..", b"/", b"", False, False),
    ],
)
def test_paths_of_a_container(path: str, clean: bytes, name: bytes, contents: bool, directory: bool) -> None:
    place = Place("c", path.encode())
    assert (place.clean, place.name) == (clean, name)
    assert (place.contents, place.says_directory) == (contents, directory)


def test_a_directory_of_the_host_has_its_own_name() -> None:
    assert Place("", b"..").name == os.fsencode(os.path.basename(os.path.dirname(os.getcwd())))


_FILE, _DIRECTORY, _CONTENTS = Place("", b"x/f"), Place("", b"x/d"), Place("", b"x/d/.")
_NOTHING = There(b"/to/new", exists=False, is_directory=False)
_A_FILE = There(b"/to/file", exists=True, is_directory=False)
_A_DIRECTORY = There(b"/to/dir", exists=True, is_directory=True)


@pytest.mark.parametrize(
    ("source", "is_directory", "there", "expected"),
    [
        (_FILE, False, _NOTHING, Landing(b"/to", b"new")),
        (_FILE, False, _A_FILE, Landing(b"/to", b"file")),
        (_FILE, False, _A_DIRECTORY, Landing(b"/to/dir", b"f")),
        (_DIRECTORY, True, _NOTHING, Landing(b"/to", b"new")),
        (_DIRECTORY, True, _A_DIRECTORY, Landing(b"/to/dir", b"d")),
        (_CONTENTS, True, _NOTHING, Landing(b"/to", b"new")),
        (_CONTENTS, True, _A_DIRECTORY, Landing(b"/to/dir", b"")),
        (Place("c", b"/"), True, _A_DIRECTORY, Landing(b"/to/dir", b"")),
        (_FILE, False, There(b"new", exists=False, is_directory=False), Landing(b".", b"new")),
        (_FILE, False, There(b"/new", exists=False, is_directory=False), Landing(b"/", b"new")),
    ],
)
def test_dockers_table(source: Place, is_directory: bool, there: There, expected: Landing) -> None:
    assert landing(source, is_directory, Place("c", there.path), there) == expected


@pytest.mark.parametrize(
    ("source", "is_directory", "destination", "there"),
    [
        (_FILE, False, b"/to/new/", _NOTHING),
        (_FILE, False, b"/to/file/", _A_FILE),
        (_DIRECTORY, True, b"/to/file", _A_FILE),
        (Place("", b"f/"), False, b"/to/new", _NOTHING),
        (Place("", b"f/."), False, b"/to/dir", _A_DIRECTORY),
        (_FILE, False, b"/none/..", There(b"/none/..", exists=False, is_directory=False)),
    ],
)
def test_what_docker_refuses(source: Place, is_directory: bool, destination: bytes, there: There) -> None:
    with pytest.raises(SpecError):
        landing(source, is_directory, Place("c", destination), there)
