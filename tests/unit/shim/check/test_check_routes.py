"""The host's routes, as our netlink reads them, beside iproute2."""

import json
import subprocess

from shim.check.subnets import routes


def test_they_are_those_of_iproute2() -> None:
    out = subprocess.run(
        ["ip", "-json", "-4", "route", "show", "table", "all"], check=True, capture_output=True, timeout=10
    ).stdout
    theirs = {entry["dst"] for entry in json.loads(out) if entry["dst"] != "default"}
    assert theirs
    ours = {str(route.to).removesuffix("/32") for route in routes() if route.to.version == 4}
    assert theirs <= ours
