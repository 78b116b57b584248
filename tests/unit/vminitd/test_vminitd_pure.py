"""Small pure parts: kernel files, crun's log, log lines, entropy."""

import struct

import pytest

from vminitd.capacity import parse_list, total_kib
from vminitd.cgroup import parse_flat
from vminitd.crun_log import error_text
from vminitd.identity import entropy_request
from vminitd.log import line

ZONES = """Node 0, zone      DMA
  per-node stats
      nr_inactive_anon 22
  pages free     3000
        boost    0
        min      20
        spanned  4095
        present  3998
        managed  3840
        cma      0
Node 0, zone    DMA32
  pages free     16000
        spanned  28640
        present  28640
        managed  24000
Node 0, zone   Movable
  pages free     60000
        spanned  65536
        present  65536
        managed  49152
"""


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0\n", {0}), ("0-3", {0, 1, 2, 3}), ("0,2-3,7\n", {0, 2, 3, 7}), ("\n", set()), ("", set())],
)
def test_lists_of_numbers(text: str, numbers: set[int]) -> None:
    assert parse_list(text) == numbers


def test_memory_counts_the_kernels_share_but_not_what_is_not_plugged() -> None:
    assert total_kib(ZONES) == (3998 + 28640 + 49152) * 4


def test_flat_keyed_files() -> None:
    assert parse_flat("oom 3\noom_kill 2\nfoo bar\n\n") == {"oom": 3, "oom_kill": 2}


def test_crun_s_errors_are_one_line() -> None:
    assert error_text(b"executable file `/nope` not found: No such file or directory\n") == (
        "executable file `/nope` not found: No such file or directory"
    )
    assert error_text(b"one\n\none\n two \tlines\n") == "one; two lines"
    assert error_text(b"") == ""
    assert error_text(b"\xff\n") == "\N{REPLACEMENT CHARACTER}"


def test_log_lines_are_one_line_of_printable_text() -> None:
    assert line("ended", {"container": "a\nb\x1b[31m", "status": 3}) == "ended container=a\ufffdb\ufffd[31m status=3"


def test_entropy_is_credited_in_bits() -> None:
    assert entropy_request(b"x" * 64) == struct.pack("ii", 512, 64) + b"x" * 64
