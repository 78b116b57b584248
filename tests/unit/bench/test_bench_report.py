"""Results made up, and what is made of them: aims, Markdown, JSON, pictures."""

import json
from pathlib import Path

import pytest

from harness.shim import parse
from tests.bench.aims import Aim, aims
from tests.bench.plot import draw
from tests.bench.report import markdown, number, table
from tests.bench.starts import machine_ms
from tests.unit.bench.results_made_up import nothing, results


def test_each_aim_is_told_as_measured() -> None:
    found = {aim.name: (aim.measured, aim.verdict) for aim in aims(results())}
    assert [*found.values()] == [
        (15.0, "reached"),  # cold ÷ clone, private: exactly the aim
        (6.4, "missed"),
        (4.0, "reached"),
        (5.0, "missed"),
        (1.3, "reached"),  # layers
        (4.0, "missed"),  # delete
        (1.5, "reached"),  # -info
        (30.0, "reached"),
        (90.0, "missed"),
        (50, "reached"),
        (49, "missed"),  # one was lost
    ]


def test_what_was_not_measured_is_neither_reached_nor_missed() -> None:
    assert {(aim.measured, aim.verdict) for aim in aims(nothing())} == {(None, "not measured")}


def test_an_aim_says_in_which_direction() -> None:
    assert Aim("x", 1.0, 4, at_most=True, unit=" MiB").wanted == "≤ 4 MiB"
    assert Aim("x", 1.0, 15, at_most=False).wanted == "≥ 15"


def test_one_that_answered_and_is_lost_all_the_same_counts() -> None:
    made_up = results()
    made_up.density["clone, private"].running -= 1
    found = {aim.name: (aim.measured, aim.verdict) for aim in aims(made_up)}
    assert found["of 50 at once, answer and run: private"] == (49, "missed")


def test_fewer_than_fifty_do_not_count_as_fifty() -> None:
    made_up = results()
    made_up.density["clone, private"].points.pop()
    found = {aim.name: aim.verdict for aim in aims(made_up)}
    assert found["of 50 at once, answer and run: private"] == "not measured"
    assert found["memory of an idle container beyond the first, private"] == "reached"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "–"), (0.0, "0.00"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (12345.6, "12346")],
)
def test_numbers_have_three_digits_that_count(value: float | None, expected: str) -> None:
    assert number(value) == expected


def test_a_table_lines_up() -> None:
    assert table(["", "ms"], [["runc", "1"], ["a clone", "100"]]).splitlines() == [
        "|         |  ms |",
        "| ------- | --: |",
        "| runc    |   1 |",
        "| a clone | 100 |",
    ]


def test_the_report_has_every_part() -> None:
    text = " ".join(markdown(results()).split())
    assert "| clone, private | 400 | 520 | 1.30 |" in text
    for words in (
        "- not here: clone, kernel (no such device)",
        "| clone, shared | 500 | 990 | 490 | 990 | 3 | 5.00 |",
        "| clone, private | 200 | 210 | 15.0 | 290 |",
        "#### clone, private: from the shim's start to the running process",
        "| clone, private | 110 (120) | 20.0 (30.0) | 100 (110) | 5.00 |",
        "| clone, private | 50.0 | 60.0 | 40.0 | 60.0 | 2 | 0.05 |",
        "| clone, without vhost-net | 1000 (0.10) |",
        "| clone, without vhost-net | 1250 (25.0) |",
        "| runc | 1 | 1.50 | 2.00 | 0.50 | – | 0.50 | 0.1 % | 1000 |",
        "| clone, private | 50 | 6.00 | 7.00 | 4.00 | 3.00 | 1.00 | 20.0 % | 4000 |",
        "| clone, private | 400 (400) | 1600 (200) |",
        "| delete | 32.0 | 32.0 | 32.0 | 32.0 | 3 | 4.00 |",
        "| clone, shared | 50 | 91.7 | 92.2 | 89.5 | 90.0 |",
        "| clone, shared | 100 | 150 | 49 | 49 | – |",
        "| 49.0 | ≥ 50 | missed |",
    ):
        assert words in text, f"{words!r} is not in\n{text}"


def test_the_report_of_nothing_has_the_aims() -> None:
    text = markdown(nothing())
    assert text.startswith("- date: 2026-11-28\n")
    assert [line for line in text.splitlines() if line.startswith("#")] == ["### Aims"]


def test_the_json_has_every_run() -> None:
    document = json.loads(results().json())
    assert document["end_to_end_ms"]["runc"] == [100, 90, 110]
    assert document["at_once_ms"]["runc"]["8"] == [400]
    assert document["density"]["clone, shared"]["points"][2]["containers"] == 50


def test_there_is_a_picture_of_each_part_and_the_same_again(tmp_path: Path) -> None:
    written = draw(results(), tmp_path)
    names = {"ctr-run", "machine", "phases", "calls", "at-once", "output", "stats", "memory", "starts"}
    names |= {"stream-host-to-container", "ping-container-to-container"}
    assert {path.name for path in written} == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    first = {path.name: path.read_bytes() for path in written}
    assert all(data.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml") for name, data in first.items())
    assert {path.name: path.read_bytes() for path in draw(results(), tmp_path)} == first
    assert draw(nothing(), tmp_path) == []


def test_a_machine_s_time_is_without_its_wait_for_create() -> None:
    clone = {"create": 0.0, "spawned": 5.0, "paused": 45.0, "restored": 55.0, "furnishing": 105.0, "answered": 205.0}
    assert (machine_ms(clone), machine_ms(clone, idle=True)) == (150.0, 200.0)
    del clone["restored"]  # it boots
    assert (machine_ms(clone), machine_ms(clone, idle=True)) == (140.0, 200.0)


@pytest.mark.parametrize(
    ("answer", "version"),
    [
        (b"unix:///run/containerd/s/1\n", 2),
        (b'{"version":3,"address":"unix:///run/containerd/s/1","protocol":"ttrpc"}', 3),
        (b"\x08\x03\x12\x1aunix:///run/containerd/s/1\x1a\x05ttrpc", 3),
    ],
)
def test_every_form_of_a_shim_s_address_is_understood(answer: bytes, version: int) -> None:
    assert parse(answer) == ("/run/containerd/s/1", f"containerd.task.v{version}.Task")
