"""The rules of a cell's firewall: those of nftables, by its own command or by iptables-nft, and of iptables-legacy.

iptables-legacy keeps its tables apart from those of nftables: /proc/net/ip_tables_names has the names of those in use.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from harness.cell import Cell

_DEADLINE_S: Final = 20.0
_LEGACY: Final = {"ip_tables_names": "iptables-legacy-save", "ip6_tables_names": "ip6tables-legacy-save"}
# The chains that the plugins portmap and firewall make at their first use, what leads to them, and what is in them
# where no container has anything there.
_CHAINS: Final = r"(PREROUTING|INPUT|FORWARD|OUTPUT|POSTROUTING|CNI-HOSTPORT-(DNAT|SETMARK|MASQ)|CNI-FORWARD|CNI-ADMIN)"
KEPT: Final = (
    rf"ip6? (nat|filter) {_CHAINS}",
    rf"ip6? (nat|filter) {_CHAINS}: type .*",
    rf"ip6? (nat|filter) {_CHAINS}: (fib daddr type local )?counter jump CNI-(HOSTPORT-(DNAT|MASQ)|FORWARD|ADMIN)",
    r"ip6? nat CNI-HOSTPORT-(SETMARK|MASQ): .*mark.*0x0*2000\b.*",
)


def rules(cell: Cell) -> Iterator[str]:
    """Each chain, and each of its rules, as "family table chain: rule"; counters are left out."""
    yield from parse(_said(cell, "nft", "--stateless", "list", "ruleset"))
    for names, command in _LEGACY.items():
        tables = Path(f"/proc/{cell.pid}/net/{names}")
        if tables.exists() and tables.read_text():
            yield from (line for line in _said(cell, command).splitlines() if line.startswith(("-A", ":")))


def parse(ruleset: str) -> Iterator[str]:
    """What nft(8) lists: tables, and in them chains, sets and the like, in braces. Pure."""
    path: list[str] = []
    for line in map(str.strip, ruleset.splitlines()):
        if line.endswith("{"):
            path.append(line.removesuffix("{").removeprefix("table").removeprefix("chain").strip())
            if len(path) > 1:
                yield " ".join(path)
        elif line == "}":
            path.pop()
        elif line and not line.startswith("#"):
            yield f"{' '.join(path)}: {line}"


def _said(cell: Cell, *command: str) -> str:
    return subprocess.run(cell.inside(command), check=True, capture_output=True, text=True, timeout=_DEADLINE_S).stdout
