"""What an ADD has made: one set of values, read from and written as any version of the specification's result.

The shapes are those of SPEC.md, section 5, of the versions 0.3.1, 0.4.0, 1.0.0 and 1.1.0. Addresses had a
`version` until 1.0.0; interfaces have an MTU, a socket and a PCI device since 1.1.0. Fields that are empty are
left out, as libcni does.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from cni import document
from cni.document import DocumentError, Json, JsonValue

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

# Oldest first. 0.3.0 was a typing error of 0.3.1 and has the same shapes.
VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
_WITHOUT_ADDRESS_VERSION = ("1.0.0", "1.1.0")


@dataclass(frozen=True)
class Interface:
    """A network interface of the container, or one of the host's where `sandbox` is empty. `mtu` is 0 if not told."""

    name: str
    mac: str = ""
    mtu: int = 0
    sandbox: str = ""
    socket_path: str = ""
    pci_id: str = ""


@dataclass(frozen=True)
class Address:
    """An address with its prefix; `interface` is an index into the result's interfaces."""

    address: IPInterface
    gateway: IPAddress | None = None
    interface: int | None = None


@dataclass(frozen=True)
class Route:
    """A route that was made; numbers are 0, or None where 0 means something, if not told."""

    destination: IPNetwork
    gateway: IPAddress | None = None
    mtu: int = 0
    advmss: int = 0
    priority: int = 0
    table: int | None = None
    scope: int | None = None


@dataclass(frozen=True)
class Dns:
    """What the network says of name servers."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """The result of an ADD."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = Dns()

    def document(self, version: str) -> Json:
        """As a document of the specification's `version`, one of VERSIONS. What that has no place for is left out."""
        modern = version in _WITHOUT_ADDRESS_VERSION
        found: dict[str, list[JsonValue]] = {
            "interfaces": [_interface_document(item, modern=modern) for item in self.interfaces],
            "ips": [_address_document(item, modern=modern) for item in self.ips],
            "routes": [_route_document(item) for item in self.routes],
        }
        written: Json = {"cniVersion": version}
        written.update({key: items for key, items in found.items() if items})
        dns = _present(
            nameservers=list(self.dns.nameservers),
            domain=self.dns.domain,
            search=list(self.dns.search),
            options=list(self.dns.options),
        )
        if dns:
            written["dns"] = dns
        return written


def parse(found: Json, default_version: str) -> Result:
    """The values of a result document; `default_version` is what it is if it does not say.

    Raises DocumentError for an unknown version and for whatever is not as the specification has it.
    """
    version = document.text(found, "cniVersion") or default_version
    if version not in VERSIONS:
        raise DocumentError(f"cniVersion is {version!r}, and must be one of {', '.join(VERSIONS)}")
    dns = document.mapping(found, "dns")
    return Result(
        interfaces=tuple(
            _interface(item, f"interfaces[{index}].")
            for index, item in enumerate(document.objects(found, "interfaces"))
        ),
        ips=tuple(_address(item, f"ips[{index}].") for index, item in enumerate(document.objects(found, "ips"))),
        routes=tuple(_route(item, f"routes[{index}].") for index, item in enumerate(document.objects(found, "routes"))),
        dns=Dns(
            nameservers=document.texts(dns, "nameservers", where="dns."),
            domain=document.text(dns, "domain", where="dns."),
            search=document.texts(dns, "search", where="dns."),
            options=document.texts(dns, "options", where="dns."),
        ),
    )


def _interface(found: Json, where: str) -> Interface:
    return Interface(
        name=document.text(found, "name", where=where),
        mac=document.text(found, "mac", where=where),
        mtu=document.number(found, "mtu", where=where) or 0,
        sandbox=document.text(found, "sandbox", where=where),
        socket_path=document.text(found, "socketPath", where=where),
        pci_id=document.text(found, "pciID", where=where),
    )


def _interface_document(item: Interface, *, modern: bool) -> Json:
    written: Json = {"name": item.name}
    written |= _present(mac=item.mac, sandbox=item.sandbox)
    if modern:
        written |= _present(mtu=item.mtu, socketPath=item.socket_path, pciID=item.pci_id)
    return written


def _address(found: Json, where: str) -> Address:
    return Address(
        address=_prefix(found, "address", where),
        gateway=_gateway(found, "gateway", where),
        interface=document.number(found, "interface", where=where),
    )


def _address_document(item: Address, *, modern: bool) -> Json:
    written: Json = {} if modern else {"version": str(item.address.version)}
    if item.interface is not None:
        written["interface"] = item.interface
    written["address"] = str(item.address)
    if item.gateway is not None:
        written["gateway"] = str(item.gateway)
    return written


def _route(found: Json, where: str) -> Route:
    return Route(
        destination=_prefix(found, "dst", where).network,
        gateway=_gateway(found, "gw", where),
        mtu=document.number(found, "mtu", where=where) or 0,
        advmss=document.number(found, "advmss", where=where) or 0,
        priority=document.number(found, "priority", where=where) or 0,
        table=document.number(found, "table", where=where),
        scope=document.number(found, "scope", where=where),
    )


def _route_document(item: Route) -> Json:
    written: Json = {"dst": str(item.destination)}
    if item.gateway is not None:
        written["gw"] = str(item.gateway)
    written |= _present(mtu=item.mtu, advmss=item.advmss, priority=item.priority)
    written.update((key, value) for key, value in (("table", item.table), ("scope", item.scope)) if value is not None)
    return written


def _prefix(found: Json, key: str, where: str) -> IPInterface:
    """An address with a prefix length, as Go's ParseCIDR takes it: no mask, no zone, no bare address."""
    value = document.text(found, key, where=where)
    address, _, length = value.partition("/")
    try:
        if not (length.isascii() and length.isdigit()) or "%" in address:
            raise ValueError
        return ipaddress.ip_interface(value)
    except ValueError:
        raise DocumentError(f"{where}{key} is {value!r}, and must be an address with a prefix length") from None


def _gateway(found: Json, key: str, where: str) -> IPAddress | None:
    value = document.text(found, key, where=where)
    if not value:
        return None
    try:
        if "%" in value:
            raise ValueError
        return ipaddress.ip_address(value)
    except ValueError:
        raise DocumentError(f"{where}{key} is {value!r}, and must be an address") from None


def _present(**fields: str | int | list[str]) -> Json:
    """Those that are not empty."""
    return {key: list[JsonValue](value) if isinstance(value, list) else value for key, value in fields.items() if value}
