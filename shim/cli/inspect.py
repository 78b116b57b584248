"""`qemubox inspect`: what shim/inspection.py has of a machine, with where its shim, its files and its bundle are."""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

from shim import inspection
from shim.config import load
from shim.copy.address import locate, shims
from shim.errors import NotFoundError


def run(arguments: argparse.Namespace) -> int:
    """Print it as a list, of one machine for each namespace that has such a container. Raises NotFoundError."""
    state_dir = Path(load().runtime.state_dir)
    found = list(_find(state_dir, arguments.id, arguments.namespace))
    places = {str(each.directory): each.address for each in shims(state_dir)}
    for document in found:
        place = places.get(str(document["directory"]))
        document["bundle"] = place.bundle if place else ""
        document["shim_socket"] = place.socket if place else ""
    print(json.dumps(found, indent=1))
    return 0


def _find(state_dir: Path, name: str, namespace: str) -> Iterable[dict[str, object]]:
    """Those of that id, in whichever namespaces; else the one that other commands would take."""
    try:
        return list(inspection.find(state_dir, name, namespace))
    except NotFoundError as error:
        try:
            address = locate(state_dir, name, namespace).address
        except NotFoundError:
            raise error from None
        return inspection.find(state_dir, address.id, address.namespace)
