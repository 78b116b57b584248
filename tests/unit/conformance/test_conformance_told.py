"""What is right and what is wrong in the events of one container."""

import pytest

from conformance.told import faults


@pytest.mark.parametrize(
    "told",
    [
        "create, exit, delete",
        "create, start, exit, delete",
        "create, start, exec-added e, exec-started e, exit e, exec-added e, exec-added f, exit, delete",
        "create, exec-added e, exec-started e, start, paused, exit e, resumed, paused, exit, delete",
        "create, start, exit, delete, create, exit, delete",
        "create, exec-added e, exec-added e, exit, delete",  # deleted in between, of which nothing is told
    ],
)
def test_what_is_right(told: str) -> None:
    assert faults(told.split(", ")) == []


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        ("create, start, exit, exit, delete", "exit after exited"),
        ("start, create, exit, delete", "start after nothing"),
        ("create, start, delete", "delete after running"),
        ("create, start, exit", "the container is exited"),
        ("create, exit, start, delete", "start after exited"),
        ("create, start, exec-started e, exit, delete", "exec-started e after nothing"),
        ("create, start, exec-added e, exit e, exit, delete", "exit e after added"),
        ("create, start, exec-added e, exec-started e, exit, exit e, delete", "exit before the exit of ['e']"),
        ("create, start, exec-added e, exec-started e, exit e, exit e, exit, delete", "exit e after exited"),
        ("create, start, exit, exec-added e, delete", "exec-added e with a container exited"),
        ("create, resumed, exit, delete", "resumed after created"),
        ("create, oom, exit, delete", "oom is unknown"),
    ],
)
def test_what_is_wrong(told: str, fault: str) -> None:
    assert faults(told.split(", "))[0] == fault
