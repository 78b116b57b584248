"""/etc/hosts, /etc/hostname and /etc/resolv.conf of a container whose client brings none of them.

nerdctl and the kubelet write these and mount them. `ctr run` and other plain clients mount none, and an image has none,
or those of whoever built it. Where the network is ours to choose (the configuration's, by CNI), so are its names: what
CNI's result says of name servers, else those that the host asks.

Pure but for `of_the_host`, and `for_container` upon it.
"""

import asyncio
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from api import guest_pb2
from shim.log import Logger
from shim.spec import OwnFile

HOSTS: Final = "/etc/hosts"
HOSTNAME: Final = "/etc/hostname"
RESOLV_CONF: Final = "/etc/resolv.conf"

# In this one systemd-resolved tells whom it asks itself, where the other only names its stub, 127.0.0.53
# (systemd-resolved.service(8)).
_BEHIND_THE_STUB: Final = Path("/run/systemd/resolve/resolv.conf")
# Far more than a real one has.
_READ_BYTES: Final = 65536
# The names that Debian's and the kubelet's files have for IPv6.
_LOCALHOST: Final = (
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
)


class Dns(Protocol):
    """What a network says of name servers: cni.result.Dns."""

    @property
    def nameservers(self) -> Sequence[str]:
        """Addresses, in the order in which to ask."""

    @property
    def domain(self) -> str:
        """The local domain, or empty."""

    @property
    def search(self) -> Sequence[str]:
        """Domains in which short names are looked for."""

    @property
    def options(self) -> Sequence[str]:
        """For the resolver."""


@dataclass(frozen=True, slots=True)
class Resolver:
    """What a resolv.conf says. Its `domain` is an older name for a `search` of one word."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def content(self) -> bytes:
        """As a file (resolv.conf(5)); empty where nothing is said."""
        lines = [f"nameserver {address}" for address in self.nameservers]
        for key, words in (("search", self.search), ("options", self.options)):
            if words:
                lines.append(f"{key} {' '.join(words)}")
        return _file(lines)


def parse(text: str) -> Resolver:
    """What a resolv.conf says. Of several lists of domains the last one counts; options add up."""
    nameservers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        if line[:1] in ("#", ";") or not (words := line.split()):
            continue
        match words:
            case ["nameserver", address, *_]:
                nameservers.append(address)
            case ["domain", domain, *_]:
                search = [domain]
            case ["search", *domains]:
                search = domains
            case ["options", *more]:
                options += more
    return Resolver(tuple(nameservers), tuple(search), tuple(options))


def reachable(resolver: Resolver) -> Resolver:
    """Without the name servers that only the host itself reaches: its loopback's, and those behind a named link."""
    kept = tuple(address for address in resolver.nameservers if _is_reachable(address))
    return Resolver(kept, resolver.search, resolver.options)


def _is_reachable(nameserver: str) -> bool:
    try:
        address = ipaddress.ip_address(nameserver)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return False
        address = address.ipv4_mapped or address
    return not (address.is_loopback or address.is_unspecified)


def of_the_host(etc: Path = Path(RESOLV_CONF), behind_the_stub: Path = _BEHIND_THE_STUB) -> Resolver:
    """Whom the host asks, as far as a container can ask them too; with no name server where there is none. Blocks."""
    resolver = parse(_read(etc))
    usable = reachable(resolver)
    if resolver.nameservers and not usable.nameservers:
        behind = reachable(parse(_read(behind_the_stub)))
        if behind.nameservers:
            return behind
    return usable


def _read(path: Path) -> str:
    """The file, or nothing where there is none to be read."""
    try:
        with path.open("rb") as file:
            return file.read(_READ_BYTES).decode(errors="replace")
    except OSError:
        return ""


def resolver_of(dns: Dns, host: Resolver) -> Resolver:
    """What a network says, if it names a server; else the host's servers, with what else the network says."""
    said = Resolver(_words(dns.nameservers), _words(dns.search) or _words([dns.domain]), _words(dns.options))
    if said.nameservers:
        return said
    return Resolver(host.nameservers, said.search or host.search, said.options or host.options)


def _words(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(word for value in values for word in value.split())


def hosts(hostname: str, addresses: Iterable[str]) -> bytes:
    """The hosts file of a container with that name and those addresses, with or without "/prefix". hosts(5).

    Those that are good on one link alone, or on the container's own loopback, are not named. A name that has a domain
    is there without it, too.
    """
    lines = [f"{address}\t{names}" for address, names in _LOCALHOST]
    if hostname.split() == [hostname]:
        short = hostname.partition(".")[0]
        names = f"{hostname} {short}" if short and short != hostname else hostname
        found = dict.fromkeys(ipaddress.ip_interface(address).ip for address in addresses)
        lines += [f"{ip}\t{names}" for ip in found if not ip.is_link_local and not ip.is_loopback]
    return _file(lines)


async def for_container(hostname: str, addresses: Iterable[str], dns: Dns, log: Logger) -> dict[str, bytes]:
    """The content of all three, by their place in the container. `dns` is what its network says of name servers."""
    resolver = resolver_of(dns, await asyncio.to_thread(of_the_host))
    if not resolver.nameservers:
        log.warning(
            "the container has no name server",
            hint="name one in the network's conflist (dns), or one that is not on the host's loopback in the host's"
            f" {RESOLV_CONF}",
        )
    return {HOSTS: hosts(hostname, addresses), HOSTNAME: _file([hostname]), RESOLV_CONF: resolver.content}


def messages(files: Iterable[OwnFile], contents: Mapping[str, bytes]) -> list[guest_pb2.File]:
    """For the guest: those of `contents` that its specification has mounts for."""
    return [
        guest_pb2.File(name=file.name, content=contents[file.destination], mode=0o644, dispensable=True)
        for file in files
    ]


def _file(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
