"""vminitd's network in a namespace of a test's own. A veth stands where the guest's virtio-net is."""

from api.guest_pb2 import Interface, NetworkConfig
from tests.unit.vminitd.network_namespace import Namespace
from vminitd.capacity import Capacity
from vminitd.network.network import Network
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


def eth0(**values: object) -> Interface:
    return Interface(**({"mac": MAC, "name": "eth0", "up": True, "ipv6": True} | values))  # type: ignore[arg-type]
