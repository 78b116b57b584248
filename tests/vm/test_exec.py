"""`ctr tasks exec`: further processes in a container that runs."""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.box import Box
from harness.containerd import Result

MIB = 1 << 20
_AT_ONCE = 6
_DEADLINE_S = 60.0


@contextmanager
def _container(box: Box) -> Iterator[str]:
    """One that runs until the block is over."""
    container = box.start("sleep", "1000")
    yield container
    box.kill(container)
    box.wait_stopped(container)
    box.delete_task(container)
    box.remove(container).checked()


def _exec(box: Box, container: str, *command: str, exec_id: str, stdin: bytes = b"") -> Result:
    return box.containerd.ctr(
        "tasks", "exec", "--exec-id", exec_id, container, *command, stdin=stdin, deadline_s=_DEADLINE_S
    )


def test_it_runs_beside_the_first_process(box: Box) -> None:
    with _container(box) as container:
        result = _exec(
            box, container, "sh", "-c", "cat /proc/1/cmdline; echo; pwd; echo to stderr >&2; exit 7", exec_id="e"
        )
        assert result.stdout == b"sleep\x001000\x00\n/\n"
        assert "to stderr" in result.error
        assert result.code == 7
        assert box.status(container) == "RUNNING"
