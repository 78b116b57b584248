"""`qemubox`, the administrator's command.

    qemubox service
    qemubox ps [--namespace NS] [--json] [-q]
    qemubox inspect [--namespace NS] ID
    qemubox logs [--console] [-f] [--namespace NS] ID
    qemubox console [--namespace NS] ID
    qemubox exec [--vm] [-i] [--timeout SECONDS] [--namespace NS] ID COMMAND...
    qemubox qmp [--force] [--namespace NS] ID COMMAND [JSON]
    qemubox cp [--namespace NS] [-L] [-a] SRC DST
    qemubox commit [--address ADDRESS] [-n NAMESPACE] [-a AUTHOR] [-m MESSAGE] [-c INSTRUCTION] [--no-pause]
        [--uncompressed] CONTAINER IMAGE
    qemubox gc [--dry-run] [--json]
    qemubox check [--json] [--quick]
    qemubox config show [--json] [--defaults]
    qemubox debug bundle [-o FILE] [ID]
    qemubox cache show [--json]
    qemubox cache prune [--all] [--to MIB]
    qemubox cache verify
    qemubox template build [--namespace NS] [--again] [--if-used]
    qemubox template list [--json]
    qemubox template verify [NAME...]
    qemubox template rm [--all] [NAME...]
    qemubox completion bash|zsh|fish
    qemubox man DIR

It reads the shim's configuration (QEMUBOX_CONFIG, or /etc/qemubox/config.toml). Exit statuses: see EXIT_STATUSES.

What words there are is in tree.py, which everything else about them is made from: help, completion.py, man.py. The
module of a command is imported when the command is to be done; tests hold this list equal to the tree.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final

from shim.cli.tree import parser
from shim.errors import QemuboxError
from shim.warm.ask import packages

EXIT_STATUSES: Final = {
    "0": "done; of exec, the program's own status",
    "1": "it could not be done, or not all of it; one line says what is wrong and what to do",
    "2": "the words are not understood",
    "124": "of exec: the program was ended, because its time was up",
    "130": "ended by ^C",
}


def main(words: Sequence[str] | None = None, *, link: str = "") -> int:
    """Do what the command line asks for; the answer is the exit status.

    `link` is the path by which our packages were found, links and all; empty: their directory itself.
    """
    _open_streams()
    try:
        try:
            arguments = parser(link or packages()).parse_args(words)
            action: Callable[[argparse.Namespace], int] = arguments.action
            status = action(arguments)
        except SystemExit:  # after --help, for one
            sys.stdout.flush()
            raise
        sys.stdout.flush()  # what fails is told here, and not by the interpreter at its end
        return status
    except QemuboxError as error:
        print(f"qemubox: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read it has had enough, as head(1)
        _end_output()
        return 1
    except OSError as error:  # a full disk below standard output; what only root may do
        print(f"qemubox: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}", file=sys.stderr)
        _end_output()
        return 1
    except KeyboardInterrupt:
        return 130


def _open_streams() -> None:
    """Those of the three that we were started without: a pipe of ours would take its number, and pass for it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _end_output() -> None:
    """The interpreter tries once more at its end to write what could not be written."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
