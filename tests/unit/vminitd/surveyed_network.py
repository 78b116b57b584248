"""What iproute2 says of a network namespace, as the message by which the guest is to make the same.

It stands where the shim's own survey does, so that the guest's side is tested without the host's.
"""

from typing import cast

from api.guest_pb2 import Address, Interface, Neighbour, NetworkConfig, Route, Rule
from tests.unit.vminitd.network_namespace import Namespace
from vminitd.spec import Json

_KERNEL = "2"


def survey(namespace: Namespace, *names: str) -> NetworkConfig:
    """Of these interfaces, and all routes and rules that are not the kernel's own."""
    routes = [
        _route(each, family, names)
        for family in (4, 6)
        for each in namespace.ask(f"-N -{family} route show table all")
        if each["protocol"] != _KERNEL and each.get("dev", "lo") in (*names, "lo")
    ]
    # What a gateway is reached by comes before it.
    routes.sort(key=lambda route: (bool(route.gateway), not route.destination))
    return NetworkConfig(
        interfaces=[_interface(namespace, name) for name in names],
        routes=routes,
        rules=[
            _rule(each, family)
            for family in (4, 6)
            for each in namespace.ask(f"-N -{family} rule")
            if each["protocol"] != _KERNEL
        ],
    )


def _interface(namespace: Namespace, name: str) -> Interface:
    (link,) = namespace.ask(f"-N addr show dev {name}")
    flags = cast(list[str], link["flags"])
    ipv6 = namespace.setting(f"ipv6/conf/{name}/disable_ipv6") == "0"
    addresses = [_address(each) for each in cast(list[Json], link["addr_info"])]
    return Interface(
        mac=str(link["address"]),
        name=name,
        mtu=int(str(link["mtu"])),
        # The kernel puts a new one of IPv4 behind the others, and one of IPv6 before them.
        addresses=[
            *(each for each in addresses if ":" not in each.address),
            *(each for each in reversed(addresses) if ":" in each.address),
        ],
        neighbours=[
            Neighbour(address=str(each["dst"]), mac=str(each["lladdr"]))
            for each in namespace.ask(f"neigh show dev {name} nud permanent")
        ],
        up="UP" in flags,
        ipv6=ipv6,
        link_local=ipv6 and not any(each.address.startswith("fe80") for each in addresses),
        promiscuous="PROMISC" in flags,
        all_multicast="ALLMULTI" in flags,
        tx_queue_length=int(str(link["txqlen"])),
    )


def _address(found: Json) -> Address:
    return Address(
        address=f"{found['local']}/{found['prefixlen']}",
        peer=str(found.get("address", "")),
        broadcast=str(found.get("broadcast", "")),
        scope=int(str(found["scope"])),
    )


def _route(found: Json, family: int, names: tuple[str, ...]) -> Route:
    via = cast(Json, found.get("via", {}))
    metrics = cast(list[Json], found.get("metrics", [{}]))
    device = str(found.get("dev", ""))
    return Route(
        destination="" if found["dst"] == "default" else str(found["dst"]),
        gateway=str(found.get("gateway", via.get("host", ""))),
        interface=device if device in names else "",
        scope=int(str(found["scope"])),
        metric=int(str(found.get("metric", 0))),
        on_link="onlink" in cast(list[str], found["flags"]),
        source=str(found.get("prefsrc", "")),
        family=family,
        table=int(str(found["table"])),
        type=int(str(found["type"])),
        mtu=int(str(metrics[0].get("mtu", 0))),
    )


def _rule(found: Json, family: int) -> Rule:
    return Rule(
        family=family,
        priority=int(str(found["priority"])),
        table=int(str(found["table"])),
        source=_selector(found, "src"),
        destination=_selector(found, "dst"),
        input=str(found.get("iif", "")),
        output=str(found.get("oif", "")),
        mark=int(str(found.get("fwmark", "0")), 16),
        mask=int(str(found.get("fwmask", "0xffffffff" if "fwmark" in found else "0")), 16),
    )


def _selector(found: Json, which: str) -> str:
    address = str(found.get(which, "all"))
    if address == "all":
        return ""
    return f"{address}/{found[which + 'len']}" if which + "len" in found else address
