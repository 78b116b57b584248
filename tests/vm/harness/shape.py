"""What a container sees of its network, as iproute2 in it says: to be compared between runtimes.

The numbers of links, and what lies behind them, differ where one is half a pair of links of the host and the other a
device of a machine, as does how it came to be: who set a route, who looked whether an address was another's too, how
the kernel was kept from a route of its own. All else must be the same.
"""

import json
from typing import Final

from harness.box import Box

# The path, as the shell of the image has an `ip` of its own.
_LOOKS: Final = {
    "links": "/bin/ip -j address",
    "IPv4 routes": "/bin/ip -4 -j route show table all",
    "IPv6 routes": "/bin/ip -6 -j route show table all",
    "IPv4 rules": "/bin/ip -4 -j rule",
    "IPv6 rules": "/bin/ip -6 -j rule",
    "neighbours": "/bin/ip -j neighbour show nud permanent",
}
_BEHIND: Final = frozenset(
    ("ifindex", "link", "link_index", "link_netnsid", "qdisc", "protocol", "nodad", "noprefixroute")
)
_OF_THE_MOMENT: Final = frozenset(("operstate", "NO-CARRIER", "LOWER_UP", "M-DOWN", "linkdown"))
_APART: Final = _BEHIND | _OF_THE_MOMENT

Shape = dict[str, list[str]]


def seen(box: Box, image: str, *options: str) -> Shape:
    """What a container of the image NETWORK sees: of each kind one line for each thing, in iproute2's order."""
    script = " && ".join(_LOOKS.values())
    said = box.run("sh", "-c", script, options=options, image=image).checked().text.splitlines()
    return {kind: _lines(line) for kind, line in zip(_LOOKS, said, strict=True)}


def _lines(said: str) -> list[str]:
    found: list[object] = json.loads(said)
    return [json.dumps(_plain(each), sort_keys=True) for each in found]


def _plain(value: object) -> object:
    if isinstance(value, dict):
        kept = {key: _plain(each) for key, each in value.items() if key not in _APART}
        # CNI's plugins make links that have none (iproute2 says nothing then); a device's is the kernel's own choice.
        return {key: each for key, each in kept.items() if (key, each) != ("txqlen", 1000)}
    if isinstance(value, list):
        return [_plain(each) for each in value if not (isinstance(each, str) and each in _APART)]
    return value
