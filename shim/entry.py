"""The shim binary, `containerd-shim-qemubox-v1`: which of its four jobs it is to do.

containerd runs it for every container, twice, so each job imports only what it needs;
tests/unit/shim/test_import_budget.py holds the lists. Names that only type checkers
look for are not imported: `from collections.abc import Sequence` alone would add 2 ms to
the interpreter's 8, `typing` 2, `dataclasses` 10 (Debian 12, 2026-11).
Nothing may be written to standard error during `start` but an error's one line: containerd
reads both streams together and takes them for the answer.
"""

from __future__ import annotations

import os
import sys

from shim.arguments import Arguments, ArgumentsError, parse
from shim.version import BINARY_NAME, RUNTIME_NAME, VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_USAGE = f"""\
usage: {BINARY_NAME} -namespace NS -address SOCKET -id ID [-publish-binary PATH] [-bundle DIR] [-debug] start|delete
       {BINARY_NAME} -info | -v

containerd runs this program; people use `ctr run --runtime {RUNTIME_NAME} ...`.
"""


def main(words: Sequence[str] | None = None) -> int:
    """Do what the command line asks for; the answer is the exit status."""
    try:
        words = sys.argv[1:] if words is None else words
        return _run(parse(words), words)
    except ArgumentsError as error:
        return _fail(str(error))
    except Exception as error:  # noqa: BLE001 - the last line of defence: one line instead of a traceback
        return _fail(str(error) or type(error).__name__)


def _run(arguments: Arguments, words: Sequence[str]) -> int:
    if arguments.version:
        sys.stdout.write(f"{BINARY_NAME}:\n  Version:  {VERSION}\n  Revision: \n  Runtime:  {RUNTIME_NAME}\n")
        return 0
    if arguments.info:
        from shim.info import runtime_info

        sys.stdout.buffer.write(runtime_info())
        return 0
    if arguments.help or not arguments.action:
        sys.stderr.write(_USAGE)
        return 0 if arguments.help else 2
    for flag, value in (("-namespace", arguments.namespace), ("-id", arguments.container_id)):
        if not value:
            raise ArgumentsError(f"{flag} must be given with {arguments.action}")
    if arguments.action == "delete":
        from shim.delete import delete

        return delete(arguments)
    from shim.start import start

    return start(arguments, words)


def _fail(message: str) -> int:
    """One line for containerd, which shows it to the user and goes on in it with ": exit status 1"."""
    line = f"{BINARY_NAME}: {' '.join(message.splitlines())}" + ("\n" if os.isatty(2) else "")
    os.write(2, line.encode(errors="backslashreplace"))
    return 1


if __name__ == "__main__":
    sys.exit(main())
