"""The memory of templates and clones: nothing but zeros is lost, and what is sealed stays as it is."""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shim.errors import HostError
from shim.template import memory

SIZE = 1 << 20
PAGE = 4096


@pytest.fixture
def state(tmp_path: Path) -> Iterator[int]:
    """A state file: the memory, then something else."""
    fd = os.open(tmp_path / "state", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"A" * PAGE, 3 * PAGE)
    os.pwrite(fd, b"B" * PAGE, SIZE - PAGE)
    os.pwrite(fd, b"devices" * 1000, SIZE)
    yield fd
    os.close(fd)


def expected() -> bytes:
    content = bytearray(SIZE)
    content[3 * PAGE : 4 * PAGE] = b"A" * PAGE
    content[SIZE - PAGE :] = b"B" * PAGE
    return bytes(content)


def test_a_copy_is_the_memory_alone(state: int) -> None:
    fd = memory.copy(state, SIZE)
    assert os.pread(fd, 2 * SIZE, 0) == expected()
    # What was a hole has taken no memory.
    assert os.fstat(fd).st_blocks * 512 < SIZE // 2
    os.pwrite(fd, b"mine", 0)
    assert os.pread(state, 4, 0) == bytes(4)
    os.close(fd)


def test_what_is_sealed_can_be_mapped_privately_and_not_written_to_by_anyone(state: int) -> None:
    fd = memory.sealed(state, SIZE)
    # As QEMU 7.2 opens it: for writing.
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    for each in (fd, again):
        with pytest.raises(PermissionError):
            os.pwrite(each, b"x", 0)
        with pytest.raises(PermissionError):
            mmap.mmap(each, SIZE, flags=mmap.MAP_SHARED)
        with pytest.raises(PermissionError):
            os.ftruncate(each, 0)
    with mmap.mmap(again, SIZE, flags=mmap.MAP_PRIVATE) as mapped:
        mapped[:4] = b"mine"
        assert mapped[:4] == b"mine"
    assert os.pread(fd, SIZE, 0) == expected()
    os.close(again)
    os.close(fd)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(pieces=st.lists(st.tuples(st.integers(0, SIZE - 1), st.binary(min_size=1, max_size=3 * PAGE)), max_size=8))
def test_taken_down_and_copied_it_is_the_same(tmp_path: Path, pieces: list[tuple[int, bytes]]) -> None:
    original = memory.empty(SIZE)
    for at, data in pieces:
        os.pwrite(original, data[: SIZE - at], at)
    with (tmp_path / "state").open("w+b", buffering=0) as file:
        memory.take_down(original, SIZE, file.fileno())
        os.pwrite(file.fileno(), b"devices", SIZE)
        clone = memory.copy(file.fileno(), SIZE)
    assert os.pread(clone, SIZE + 1, 0) == os.pread(original, SIZE + 1, 0)
    os.close(clone)
    os.close(original)


def test_zeros_that_were_written_take_no_room_in_the_state(tmp_path: Path) -> None:
    touched = memory.empty(SIZE)
    os.pwrite(touched, bytes(SIZE), 0)
    with (tmp_path / "state").open("w+b", buffering=0) as file:
        memory.take_down(touched, SIZE, file.fileno())
        assert os.fstat(file.fileno()).st_blocks == 0
    os.close(touched)


def test_what_cannot_be_read_is_told_and_leaves_nothing_open() -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(HostError, match="cannot be read: Bad file descriptor"):
        memory.copy(-1, SIZE)
    assert set(os.listdir("/proc/self/fd")) == before
