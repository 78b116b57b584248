"""What is written down can be read again, whatever a kill or a full disk has done to the file."""

import errno
import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.journal import FILE_NAME, KINDS, Journal, check

_ENTRIES = st.lists(
    st.tuples(st.sampled_from(sorted(KINDS)), st.text(st.characters(blacklist_categories=["Cs"]), min_size=1)),
    min_size=1,
    max_size=5,
)


def _facts(kind: str, text: str) -> dict[str, str | int]:
    found: dict[str, str | int] = {"marker": text} if KINDS[kind] == "marker" else {"path": f"/x{text}"}
    return found | {"link": "eth0"} if kind == "ingress" else found


def test_a_missing_journal_has_no_entries(tmp_path: Path) -> None:
    assert Journal(tmp_path / "nothing").entries() == []


def test_entries_come_back_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.record("path", path="/a b/\N{SNOWMAN}\n")
    journal.record("process", marker="qemubox-1", cid=70000)
    assert Journal(tmp_path).entries() == [
        {"kind": "path", "path": "/a b/\N{SNOWMAN}\n"},
        {"kind": "process", "marker": "qemubox-1", "cid": 70000},
    ]
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600


@given(_ENTRIES, st.data())
def test_a_journal_cut_anywhere_has_all_entries_but_the_last(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, str]], data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    journal = Journal(directory)
    for kind, text in entries[:-1]:
        journal.record(kind, **_facts(kind, text))
    path = directory / FILE_NAME
    whole = path.stat().st_size if path.exists() else 0
    kind, text = entries[-1]
    journal.record(kind, **_facts(kind, text))
    os.truncate(path, data.draw(st.integers(whole, path.stat().st_size)))
    found = journal.entries()
    expected = [{"kind": kind, **_facts(kind, text)} for kind, text in entries]
    assert found in (expected[:-1], expected)
    # What is recorded after the cut is not drawn into it.
    journal.record("path", path="/next")
    assert journal.entries() == [*found, {"kind": "path", "path": "/next"}]


@given(st.binary())
def test_garbage_is_passed_over(tmp_path_factory: pytest.TempPathFactory, garbage: bytes) -> None:
    directory = tmp_path_factory.mktemp("journal")
    (directory / FILE_NAME).write_bytes(garbage)
    journal = Journal(directory)
    before = journal.entries()
    journal.record("mount", path="/m")
    assert journal.entries() == [*before, {"kind": "mount", "path": "/m"}]


@pytest.mark.parametrize("line", [b"[]", b"3", b'"x"', b"{}", b'{"kind": 3}', b"null"])
def test_json_that_is_no_entry_is_passed_over(tmp_path: Path, line: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(line + b"\n")
    assert Journal(tmp_path).entries() == []


def test_a_short_write_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[: len(data) // 2]))
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is what counts
        Journal(tmp_path).record("path", path="/a")
    assert caught.value.errno == errno.ENOSPC


def test_a_directory_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Journal(tmp_path / "gone").record("path", path="/a")


@pytest.mark.parametrize(
    ("kind", "facts"),
    [
        ("file", {"path": "/a"}),
        ("process", {}),
        ("process", {"marker": ""}),
        ("process", {"marker": 5}),
        ("path", {"path": ""}),
        ("path", {"path": "a/b"}),
        ("path", {"path": "/"}),
        ("path", {"path": "//"}),
        ("mount", {"path": "."}),
        ("netns", {"marker": "x"}),
        ("cni", {"path": "cni.json"}),
        ("ingress", {"path": "/run/netns/a"}),
        ("ingress", {"path": "/run/netns/a", "link": ""}),
        ("ingress", {"path": "a", "link": "eth0"}),
    ],
)
def test_what_could_not_be_undone_is_refused(tmp_path: Path, kind: str, facts: dict[str, str | int]) -> None:
    with pytest.raises(ValueError, match=r"."):
        check(kind, facts)
    with pytest.raises(ValueError, match=r"."):
        Journal(tmp_path).record(kind, **facts)
    assert not (tmp_path / FILE_NAME).exists()


def test_a_line_is_json_for_whoever_looks(tmp_path: Path) -> None:
    Journal(tmp_path).record("netns", path="/run/netns/x")
    lines = [line for line in (tmp_path / FILE_NAME).read_text().split("\n") if line]
    assert [json.loads(line) for line in lines] == [{"kind": "netns", "path": "/run/netns/x"}]
