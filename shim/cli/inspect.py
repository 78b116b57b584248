"""`qemubox inspect`: what shim/inspection.py has of a machine, with where its shim, its files and its bundle are."""

import argparse
import json
from pathlib import Path

from shim import inspection
from shim.config import load
from shim.copy.address import shims


def run(arguments: argparse.Namespace) -> int:
    """Print it as a list, of one machine for each namespace that has such a container. Raises NotFoundError."""
    state_dir = Path(load().runtime.state_dir)
    found = list(inspection.find(state_dir, arguments.id, arguments.namespace))
    places = {str(each.directory): each.address for each in shims(state_dir)}
    for document in found:
        place = places.get(str(document["directory"]))
        document["bundle"] = place.bundle if place else ""
        document["shim_socket"] = place.socket if place else ""
    print(json.dumps(found, indent=1))
    return 0
