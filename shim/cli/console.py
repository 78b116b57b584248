"""`qemubox console`: this terminal as that of the guest's serial line, until ^] or the machine's end.

What comes from the guest goes to the terminal as it is, control characters too: that is what a console is. Whoever does
not trust the guest with his terminal reads `qemubox logs --console`.
"""

import argparse
import contextlib
import os
import select
import signal
import socket
import sys
import termios
import tty
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Final

from shim import deadlines, inspection
from shim.config import load
from shim.copy.address import Shim, locate
from shim.errors import HostError, NotFoundError
from shim.vm.offered import FILE_NAME, WRITER

# ^], as in telnet(1) and virsh(1).
LEAVE: Final = b"\x1d"
# From others, as timeout(1) or a session's end: no key sends one while the terminal is raw.
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_PIECE: Final = 65536
_INPUT: Final = 1024


def run(arguments: argparse.Namespace) -> int:
    """Attach. Raises NotFoundError, HostError."""
    shim = locate(Path(load().runtime.state_dir), arguments.id, arguments.namespace)
    with _connected(shim.directory / FILE_NAME) as (sock, role):
        for line in _greeting(shim, writes=role == WRITER):
            print(f"qemubox: {line}", file=sys.stderr)
        with _raw_terminal():
            left = carry(sock)
    print(f"\r\nqemubox: {'left' if left else 'the machine has ended, or it was too fast for us'}", file=sys.stderr)
    return 0


def carry(sock: socket.socket, source: int = 0, target: int = 1) -> bool:
    """Both ways until ^] in the input, which is answered with True, or the socket's end.

    The end of the input that is no terminal ends nothing: what the guest says to it is still to come.
    """
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    poller.register(source, select.POLLIN)
    while True:
        for descriptor, _events in poller.poll():
            if descriptor == source:
                try:
                    typed = os.read(source, _INPUT)
                except OSError:  # the terminal is gone
                    typed = b""
                words, leave, _ = typed.partition(LEAVE)
                try:
                    sock.sendall(words)
                except ConnectionError:
                    return False
                if leave:
                    return True
                if not typed:
                    poller.unregister(source)
                continue
            try:
                said = sock.recv(_PIECE)
            except ConnectionError:
                said = b""
            if not said:
                return False
            while said:
                said = said[os.write(target, said) :]


@contextlib.contextmanager
def _connected(path: Path) -> Iterator[tuple[socket.socket, bytes]]:
    """The shim's socket, and what it says that we are. Raises NotFoundError, HostError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(deadlines.DIAL_S)
        try:
            sock.connect(str(path))
            role = sock.recv(1)
            sock.settimeout(None)
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotFoundError(
                f"{path}: the machine offers no console (any more)", hint="its shim's log may say why"
            ) from None
        except TimeoutError:
            raise HostError(f"{path}: the shim does not answer within {deadlines.DIAL_S:g} s") from None
        except OSError as error:
            raise HostError(f"{path}: {error.strerror or error}", hint="machines are root's") from error
        if not role:
            raise HostError("the console takes nobody more, or the machine has just ended", hint="see qemubox ps")
        yield sock, role


def _greeting(shim: Shim, *, writes: bool) -> Iterator[str]:
    yield f"the console of {shim.address.id}; ^] leaves"
    if not writes:
        yield "somebody else has the keyboard: what is typed here is dropped"
    known = inspection.read(shim.directory)
    if known is not None and not known.guest_console:
        yield "nobody answers in this guest: debug.guest_console was off when its shim started"


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Every key goes to the guest, ^C too; the terminal is as it was afterwards, also where a signal ends us."""
    if not os.isatty(0):
        yield
        return
    before = termios.tcgetattr(0)

    def end(number: int, _frame: FrameType | None) -> None:
        # Without waiting for what is still to be shown: the terminal may stand still, or be gone.
        with contextlib.suppress(termios.error):
            termios.tcsetattr(0, termios.TCSANOW, before)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    ours = [number for number in _ENDING if signal.getsignal(number) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
