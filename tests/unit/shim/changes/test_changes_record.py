"""What was applied is known to the next run, whatever became of the one that wrote it down."""

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shim.changes.listing import RACY
from shim.changes.record import Known, Record

_DIRECTORY = 4711
_NAMES = st.sets(st.lists(st.sampled_from([b"a", b"b", b"\xff" * 255]), min_size=1, max_size=3).map(tuple))


def knowledge(names: set[tuple[bytes, ...]], digest: bytes) -> list[Known]:
    """Of all these and the directories that lead to them."""
    whole = sorted({each[:depth] for each in {*names, ()} for depth in range(len(each) + 1)})
    return [Known(each, digest, covers=len(each) == 2) for each in whole]


def write(path: Path, entries: list[Known], *, finish: bool = True) -> bytes:
    """One run; the name that it gives to what is not ready."""
    with Record(path, _DIRECTORY) as record:
        for each in entries:
            record.add(each)
        record.flush()
        if finish:
            record.finish()
        return record.making


def read(path: Path) -> tuple[list[Known], bool, bool]:
    """What is known, whether anything is, and whether the last run was interrupted. The record stays as it is."""
    with Record(path, _DIRECTORY) as record:
        found = list(record.known), record.found, record.interrupted
    path.with_name(f"{path.name}.new").unlink()
    return found


def clean(place: Path) -> Path:
    for each in place.iterdir():
        each.unlink()
    return place / "record"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=_NAMES)
def test_it_is_read_as_it_was_written(tmp_path: Path, names: set[tuple[bytes, ...]]) -> None:
    path, entries = clean(tmp_path), knowledge(names, b"1" * 16)
    write(path, entries)
    assert read(path) == (entries, True, False)
    assert [each.name for each in tmp_path.iterdir()] == ["record"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(old=_NAMES, new=_NAMES, cut=st.integers(0, 1 << 10))
def test_after_an_interrupted_run_all_of_both_may_be_there(
    tmp_path: Path, old: set[tuple[bytes, ...]], new: set[tuple[bytes, ...]], cut: int
) -> None:
    """And of none that comes before where it was, or is in there, is it known how."""
    path = clean(tmp_path)
    before, after = knowledge(old, b"1" * 16), knowledge(new, b"2" * 16)
    making = write(path, before)
    assert write(path, after, finish=False) == making
    with path.with_name("record.new").open("r+b") as file:
        size = file.seek(0, 2)
        file.truncate(max(size - cut, size // 2, 42))
        whole = file.seek(0, 2) == size
    with Record(path, _DIRECTORY) as record:
        found = list(record.known)
        assert (record.found, record.interrupted, record.making) == (True, True, making)
    names = [each.names for each in found]
    assert names == sorted(set(names))
    assert {each.names for each in before} <= set(names) <= {each.names for each in (*before, *after)}
    if whole:
        assert set(names) == {each.names for each in (*before, *after)}
    for each in found:
        assert each.covers == (len(each.names) == 2)
        assert each.digest in (RACY, b"1" * 16)
        if whole:
            reached = max(one.names for one in after)
            beyond = each.names > reached and each.names[: len(reached)] != reached
            assert (each.digest == RACY) != beyond


def test_interrupted_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "record"
    making = write(path, knowledge({(b"a",)}, b"1" * 16), finish=False)
    assert write(path, knowledge({(b"b",)}, b"2" * 16), finish=False) == making
    with Record(path, _DIRECTORY) as record:
        assert [each.names for each in record.known] == [(), (b"a",), (b"b",)]


def test_what_was_removed_is_known_only_to_who_comes_after_an_interruption(tmp_path: Path) -> None:
    path = tmp_path / "record"
    entries = knowledge({(b"a",)}, b"1" * 16)
    gone = Known((b"b",), b"1" * 16, covers=True, gone=True)
    write(path, [*entries, gone], finish=False)
    with Record(path, _DIRECTORY) as record:
        assert [(each.names, each.covers, each.digest) for each in record.known][-1] == ((b"b",), True, RACY)
    write(path, [*entries, gone])
    assert read(path) == (entries, True, False)


def test_a_record_that_is_not_trusted_has_names_alone(tmp_path: Path) -> None:
    path = tmp_path / "record"
    entries = knowledge({(b"a", b"b")}, b"1" * 16)
    write(path, entries)
    with Record(path, _DIRECTORY, trusted=False) as record:
        assert [(each.names, each.covers, each.digest) for each in record.known] == [
            (each.names, each.covers, RACY) for each in entries
        ]


def test_a_run_that_was_killed_before_its_first_word(tmp_path: Path) -> None:
    path = tmp_path / "record"
    entries = knowledge({(b"a",)}, b"1" * 16)
    making = write(path, entries)
    path.with_name("record.new").touch()
    with Record(path, _DIRECTORY) as record:
        assert (list(record.known), record.interrupted, record.making) == (entries, True, making)


def test_of_another_directory_it_is_none(tmp_path: Path) -> None:
    path = tmp_path / "record"
    write(path, knowledge({(b"a",)}, b"1" * 16))
    with Record(path, _DIRECTORY + 1) as record:
        assert (list(record.known), record.found) == ([], False)


def test_a_name_that_nobody_knows_is_made_up_for_each(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one", []), write(tmp_path / "other", [])
    assert one != other
    assert len(one) == len(other) == 41
