"""Files that go into a container: as they are when they are read, and never more than one message holds."""

from pathlib import Path

import pytest

from shim.errors import MissingPartError, SpecError
from shim.spec import FILES_LIMIT, HostFile
from shim.task.host_files import read
from tests.unit.shim.observe import same_fds


def test_content_and_attributes(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("127.0.0.1 localhost\n")
    path.chmod(0o640)
    with same_fds():
        (file,) = read((HostFile("0", path),))
    assert (file.name, file.content, file.mode) == ("0", b"127.0.0.1 localhost\n", 0o640)
    assert (file.uid, file.gid) == (path.stat().st_uid, path.stat().st_gid)


def test_files_that_have_grown_are_refused(tmp_path: Path) -> None:
    """By a hook, since they were looked at."""
    paths = [tmp_path / "a", tmp_path / "b"]
    paths[0].write_bytes(bytes(FILES_LIMIT - 1))
    paths[1].write_bytes(b"x")
    files = tuple(HostFile(str(number), path) for number, path in enumerate(paths))
    assert len(read(files)) == 2
    paths[1].write_bytes(b"xy")
    with same_fds(), pytest.raises(SpecError, match=f"{paths[1]}: the container's files have more than 1 MiB together"):
        read(files)


def test_one_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingPartError, match=f"cannot read {tmp_path}/gone for the container: No such file"):
        read((HostFile("0", tmp_path / "gone"),))
