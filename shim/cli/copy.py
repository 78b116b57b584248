"""`qemubox cp`: its words, handed to shim/copy/."""

import argparse
from pathlib import Path

from shim.config import load
from shim.copy import command


def run(arguments: argparse.Namespace) -> int:
    """Copy; raises what is wrong, of shim/errors.py."""
    return command.run(
        Path(load().runtime.state_dir),
        arguments.source,
        arguments.destination,
        namespace=arguments.namespace,
        follow=arguments.follow_link,
        archive=arguments.archive,
    )
