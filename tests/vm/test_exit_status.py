"""Exit statuses and deaths by signal come through unchanged."""

import pytest

from harness.box import Box


@pytest.mark.parametrize("status", [0, 1, 2, 42, 127, 255])
def test_exit_status_is_the_process_own(box: Box, status: int) -> None:
    assert box.run("sh", "-c", f"exit {status}").code == status


@pytest.mark.every_containerd
def test_sigkill_is_137(box: Box) -> None:
    """A signal from outside; SIGKILL is the one that a first process cannot ignore (pid_namespaces(7))."""
    with box.events() as events:
        container = box.start("sleep", "1000")
        box.kill(container).checked()
        assert events.wait("/tasks/exit", container).fields["exit_status"] == 137
    assert "non-zero exit code 137" in box.delete_task(container).error
    box.remove(container).checked()


def test_sigterm_reaches_the_process(box: Box) -> None:
    """A first process dies of no signal that it does not handle, so it says 143 itself, as shells do."""
    with box.events() as events:
        container = box.start_trapping(143)
        box.kill(container, "TERM").checked()
        assert events.wait("/tasks/exit", container).fields["exit_status"] == 143
    assert "non-zero exit code 143" in box.delete_task(container).error
    box.remove(container).checked()


@pytest.mark.parametrize(("signal", "status"), [("KILL", 137), ("TERM", 143)])
def test_death_of_a_child_by_signal_is_seen_inside(box: Box, signal: str, status: int) -> None:
    """What a shell reports of its child, killed by a signal inside the container."""
    assert box.run("sh", "-c", f"sh -c 'kill -{signal} $$'; exit $?").code == status


@pytest.mark.every_containerd
def test_output_and_error_are_told_apart(box: Box) -> None:
    result = box.run("sh", "-c", "echo out; echo err >&2; exit 3")
    assert (result.code, result.text, result.error) == (3, "out", "err")
