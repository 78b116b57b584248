"""Files that the shim sends: written once, rewritten in place."""

import os
from pathlib import Path

import pytest

from vminitd.errors import KernelError, RequestError, UnknownError
from vminitd.files import File, Files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(str(tmp_path / "files"))


def status(path: str) -> tuple[int, int, int]:
    found = os.stat(path)
    return found.st_mode & 0o7777, found.st_uid, found.st_gid


def test_they_are_written_with_their_owner_and_mode(files: Files, tmp_path: Path) -> None:
    paths = files.write([File("0", b"hello", 0o640, 12, 34), File("../up", b"x", 0o7777, 0, 0)])
    assert Path(paths["0"]).read_bytes() == b"hello"
    assert status(paths["0"]) == (0o640, 12, 34)
    assert os.path.dirname(paths["../up"]) == str(tmp_path / "files")
    assert status(str(tmp_path / "files"))[0] == 0o711


def test_one_that_comes_twice_is_refused(files: Files) -> None:
    with pytest.raises(RequestError, match="the file '0' was sent twice"):
        files.write([File("0", b"", 0o644, 0, 0)] * 2)


@pytest.mark.parametrize("content", [b"", b"x", b"hello, world", b"longer than it was before" * 10_000])
def test_one_that_is_rewritten_stays_the_same_file(files: Files, content: bytes) -> None:
    path = files.write([File("0", b"hello, world", 0o640, 12, 34), File("1", b"other", 0o600, 0, 0)])["0"]
    with open(path, "rb") as bound:
        files.rewrite([File("0", content, 0o604, 34, 12)])
        assert bound.read() == content
        assert os.fstat(bound.fileno()).st_ino == os.stat(path).st_ino
    assert status(path) == (0o604, 34, 12)


def test_with_an_unknown_one_none_is_rewritten(files: Files) -> None:
    path = files.write([File("0", b"before", 0o644, 0, 0)])["0"]
    with pytest.raises(UnknownError, match="the container was made without a file '1'"):
        files.rewrite([File("0", b"after", 0o644, 0, 0), File("1", b"", 0o644, 0, 0)])
    assert Path(path).read_bytes() == b"before"


def test_too_much_is_refused_before_any_of_it_is_written(files: Files) -> None:
    path = files.write([File("0", b"before", 0o644, 0, 0)])["0"]
    with pytest.raises(RequestError, match="2097153 bytes of files are more than 2097152"):
        files.rewrite([File("0", bytes(1 << 20), 0o644, 0, 0), File("0", bytes((1 << 20) + 1), 0o644, 0, 0)])
    assert Path(path).read_bytes() == b"before"


def test_what_cannot_be_written_is_named(files: Files) -> None:
    path = files.write([File("0", b"before", 0o644, 0, 0)])["0"]
    os.unlink(path)
    with pytest.raises(KernelError, match="the file '0' cannot be rewritten: No such file"):
        files.rewrite([File("0", b"after", 0o644, 0, 0)])
