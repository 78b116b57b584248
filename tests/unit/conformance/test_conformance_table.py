"""docs/conformance.md is what its rows say, and the rows leave nothing out."""

from collections import Counter

import pytest

from api.task_ttrpc import TaskBase
from conformance.answers import CLOSED, Is, Row, missing, ok, refused, same
from conformance.calls import CALLS
from conformance.notes import NOTES, STATES
from conformance.rows import ROWS
from conformance.rows_exec import EXEC_ROWS
from conformance.table import DOCUMENT, text

_ALL = (*ROWS, *EXEC_ROWS)


def test_the_document_is_that_of_the_rows() -> None:
    assert DOCUMENT.read_text() == text(), "run `task table`"


def test_every_call_of_the_api_is_in_the_table() -> None:
    methods = {name for name in vars(TaskBase) if name[0].isupper()}
    assert {call.method for call in CALLS.values()} == methods
    assert {row.call for row in _ALL} == {*CALLS}


def test_every_call_has_a_row_in_every_state() -> None:
    for state in {row.state for row in ROWS}:
        calls = {row.call for row in ROWS if row.state == state}
        # There is no process yet whose id could be taken.
        assert calls == {*CALLS} - ({"Exec(same id)"} if state == "created" else set()), state


def test_no_row_is_there_twice_and_each_state_and_note_is_explained() -> None:
    assert [row for row, count in Counter(map(str, _ALL)).items() if count > 1] == []
    assert {row.state for row in _ALL} == {*STATES}
    assert {row.note for row in _ALL} - {""} == {*NOTES}


def test_what_differs_in_more_than_words_says_why() -> None:
    for row in _ALL:
        if row.runc is None or row.note:
            continue
        alike = (row.runc.after, row.runc.events) == (row.ours.after, row.ours.events)
        if row.ours.code == "OK" or row.runc.code == "OK":
            assert row.runc == row.ours, row
        assert alike, row


@pytest.mark.parametrize(
    ("expected", "code", "words", "admitted"),
    [
        (ok("a"), "OK", "a", True),
        (ok("a"), "OK", "a b", False),
        (ok("a or b"), "OK", "b", True),
        (ok(), "OK", "a", False),
        (refused("it is paused"), "FAILED_PRECONDITION", "container C: it is paused", True),
        (refused("it is paused"), "UNKNOWN", "container C: it is paused", False),
        (missing("x"), "NOT_FOUND", "y", False),
        (Is(f"OK or {CLOSED}"), CLOSED, "", True),
    ],
)
def test_what_an_expected_answer_admits(expected: Is, code: str, words: str, admitted: bool) -> None:
    assert expected.admits(code, words) is admitted


def test_runc_s_newest_shim_may_answer_otherwise() -> None:
    row = Row("Start", "stopped", ok("old"), ok("ours"), newest=ok("new"))
    found = [row.expected(*where).words for where in (("runc", "1.6"), ("runc", "2"), ("qemubox", "2"))]
    assert found == ["old", "new", "ours"]
    assert same("Start", ok("x")).expected("runc", "2").words == "x"
