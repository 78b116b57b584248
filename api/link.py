"""How the shim and vminitd find each other where the machine has virtio-serial ports, and no vsock.

One port is for control: it carries ttrpc from the start, with the guest as the server. A machine that is to become a
template is asked to by its first call, and a clone goes on with its template's connection, so the numbers of its calls
come behind. Each stream of standard input or output has a port of its own, whose name is its token's text.
"""

from typing import Final

CONTROL_PORT: Final = "qemubox.control"
# The word on the kernel's command line that has vminitd put a prompt on the console (debug.guest_console).
GUEST_CONSOLE: Final = "qemubox.guest_console"
# How many calls a template has had before a clone's first.
CALLS_BEFORE: Final = 1


def port_token(number: int) -> bytes:
    """The 16 bytes that name the stream on port `number`."""
    return b"qemubox-port-%03d" % number


def port_number(token: bytes) -> int:
    """The number of the port with this token. Raises ValueError for one of another kind."""
    return int(token.removeprefix(b"qemubox-port-"))


def port_name(token: bytes) -> str:
    """The name of the port that carries the stream with this token. Raises ValueError for one of another kind."""
    return token.decode("ascii")
