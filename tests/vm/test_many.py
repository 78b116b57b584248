"""Many containers, one after the other and at once: all work, and nothing is left of any."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.box import Box

_AT_ONCE = 8


@pytest.mark.timeout(600)
@pytest.mark.on("1.6")
def test_in_a_row(box: Box, pytestconfig: pytest.Config) -> None:
    """What is left behind is compared by `box` itself, after the last one."""
    for number in range(pytestconfig.getoption("in_a_row")):
        result = box.run("sh", "-c", f"echo {number}; exit {number % 7}")
        assert (result.text, result.code) == (str(number), number % 7)


@pytest.mark.every_containerd
@pytest.mark.timeout(300)
def test_eight_at_once(box: Box) -> None:
    def one(number: int) -> tuple[str, int]:
        result = box.run("sh", "-c", f"echo {number}; exit {number}", deadline_s=200)
        return result.text, result.code

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        assert list(pool.map(one, range(_AT_ONCE))) == [(str(number), number) for number in range(_AT_ONCE)]
