"""What workers share out among them: the tests of a file with one runtime on one containerd, the longest first."""

import pytest


def group_of(item: pytest.Item) -> str:
    """File, containerd and runtime: what module's fixtures are made for."""
    parameters = getattr(item, "callspec", None)
    words = [item.path.stem.removeprefix("test_")]
    if parameters is not None:
        words += [str(parameters.params[name]) for name in ("containerd", "runtime") if name in parameters.params]
    return "-".join(words)


def order(items: list[pytest.Item]) -> None:
    """Give each test its group."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group_of(item)))
