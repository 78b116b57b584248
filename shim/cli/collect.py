"""`qemubox gc`: its words, handed to shim/gc.py."""

import argparse

from shim import gc
from shim.config import load


def run(arguments: argparse.Namespace) -> int:
    """Sweep; raises HostError where nothing can be done at all."""
    return gc.run(load(), dry_run=arguments.dry_run, as_json=arguments.json)
