"""`ctr run -t`: the container's first process has a terminal of the client's size, and the keyboard reaches it."""

from harness.box import Box
from harness.images import BUSYBOX
from harness.terminal import SCRIPT, terminal

_DEADLINE_S = 40.0
_ROWS, _COLUMNS = 33, 101


def test_a_terminal_has_the_client_s_size_and_takes_its_keys(box: Box) -> None:
    container = box.new_id()
    arguments = box.run_arguments(container, ["sh", "-c", SCRIPT], ["--rm", "-t"], BUSYBOX)
    with (
        terminal(_ROWS, _COLUMNS) as client,
        box.containerd.running(arguments, stdin=client.theirs, stdout=client.theirs) as ctr,
    ):
        seen = client.read_until("ready", _DEADLINE_S)
        assert "/dev/" in seen
        client.type(b"a line\n")
        seen = client.read_until("got a line", _DEADLINE_S)
        assert f"{_ROWS} {_COLUMNS}" in seen
        assert ctr.wait(_DEADLINE_S) == 3
