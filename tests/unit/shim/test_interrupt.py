"""SIGTERM as ^C: the loop's main task is cancelled, and what it waits for meanwhile is not."""

import asyncio
import os
import signal

import pytest

from shim.interrupt import told_to_end_as_by_ctrl_c


def test_what_is_undone_may_wait_for_what_runs_beside_it() -> None:
    """As a machine's end, which a task of its own waits for."""
    order = []

    async def beside() -> None:
        await asyncio.sleep(0.1)
        order.append("beside")

    async def work() -> None:
        other = asyncio.create_task(beside())
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
        try:
            await asyncio.Event().wait()
        finally:
            await other
            order.append("undone")

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), told_to_end_as_by_ctrl_c():
        asyncio.run(work())
    assert order == ["beside", "undone"]
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("ignored", [True, False])
def test_without_a_loop_and_where_the_shell_has_it_ignored(ignored: bool) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), told_to_end_as_by_ctrl_c():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, before)
