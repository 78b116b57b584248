"""vminitd's network in a namespace of a test's own. A veth stands where the guest's virtio-net is."""

import time
from collections.abc import Sequence
from typing import cast

from api.guest_pb2 import Interface, NetworkConfig
from tests.unit.vminitd.network_namespace import Namespace
from vminitd.capacity import Capacity
from vminitd.network.network import Network
from vminitd.spec import Json
from vminitd.uevent import Uevents, kernel_socket

MAC, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:02"
QUESTIONS = ("-4 route show table all", "-6 route show table all", "-4 rule", "-6 rule", "neigh show nud permanent")


def plug(where: Namespace, name: str, mac: str, far: str) -> None:
    """A veth, down; its far end is up and has no address."""
    where.ip(
        f"link add {name} address {mac} type veth peer name {far} address {mac[:-5]}ff:{mac[-2:]}",
        f"link set {far} addrgenmode none",
        f"link set {far} up",
    )


async def configured(config: NetworkConfig) -> None:
    """Waits for it as Create does, whatever comes of it."""
    uevents = Uevents(kernel_socket())
    network = Network(uevents, Capacity(uevents))
    try:
        network.expect(config)
        await network.there()
    finally:
        network.close()
        uevents.close()


def configure(where: Namespace, config: NetworkConfig) -> None:
    where.run_async(lambda: configured(config))


def seen(where: Namespace, *names: str) -> dict[str, object]:
    """All that a program in there can see of its network, but for the far ends."""
    found: dict[str, object] = {f"{name}": where.ask(f"addr show dev {name}") for name in (*names, "lo")}
    for question in QUESTIONS:
        found[question] = [each for each in where.ask(question) if not str(each.get("dev", "")).startswith("far")]
    return found


def made(where: Namespace, commands: Sequence[str]) -> dict[str, object]:
    """What is seen after these, which are about eth0: of what follows from each the next finds all."""
    for command in commands:
        where.ip(command)
        if command.startswith(("link", "addr")):
            settled(where, "eth0")
    return settled(where, "eth0")


def settled(where: Namespace, name: str) -> dict[str, object]:
    """What is seen once the kernel has done what it does later: a link that is up, and what IPv6 makes of that."""
    end = time.monotonic() + 10
    while not _is_settled(where, name):
        assert time.monotonic() < end, where.ask(f"addr show dev {name}")
    return seen(where, name)


def _is_settled(where: Namespace, name: str) -> bool:
    (link,), (addresses,) = where.ask(f"link show dev {name}"), where.ask(f"addr show dev {name}")
    if "UP" not in str(link["flags"]):
        return True
    own = [str(each["local"]) for each in cast(list[Json], addresses["addr_info"]) if each["family"] == "inet6"]
    by_itself = where.setting(f"ipv6/conf/{name}/disable_ipv6") == "0" and link["inet6_addr_gen_mode"] != "none"
    local = {each["dst"] for each in where.ask(f"-6 route show table local type local dev {name}")}
    return (
        link["operstate"] == "UP"
        and local >= set(own)  # they are in use
        and (not by_itself or any(address.startswith("fe80::") for address in own))
    )


def eth0(**values: object) -> Interface:
    return Interface(**({"mac": MAC, "name": "eth0", "up": True, "ipv6": True} | values))  # type: ignore[arg-type]
