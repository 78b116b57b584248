"""What a template does so that its clones need not do it first: all of a network but the setting of it.

Protobuf makes its classes, and Python its shortcuts, when something is used for the first time. Nothing is told to the
kernel; it is asked what interfaces there are.
"""

from api.guest_pb2 import Address, Interface, Neighbour, NetworkConfig, Route
from netlink.message import batch
from vminitd.network.connection import Connection
from vminitd.network.interfaces import Found, name
from vminitd.network.plan import requests

_TIMES = 8  # Python specializes what it has run some times: PEP 659

_MAC = "02:00:00:00:00:00"
_CONFIG = NetworkConfig(
    interfaces=[
        Interface(
            mac=_MAC,
            name="eth0",
            mtu=1500,
            addresses=[Address(address="192.0.2.2/24", broadcast="192.0.2.255"), Address(address="2001:db8::2/64")],
            neighbours=[Neighbour(address="192.0.2.1", mac=_MAC)],
            up=True,
            ipv6=True,
            tx_queue_length=1000,
            queues=1,
        )
    ],
    routes=[
        Route(gateway="192.0.2.1", interface="eth0", family=4, type=1),
        Route(gateway="2001:db8::1", interface="eth0", family=6, type=1, metric=1024),
    ],
    sysctls={"net.ipv4.ip_forward": "0"},
)


def rehearse(connection: Connection) -> None:
    """Raises KernelError."""
    for _ in range(_TIMES):
        config = NetworkConfig.FromString(_CONFIG.SerializeToString())
        link = connection.link(1) or connection.links()[0]
        found = [Found(each, link, name(each)) for each in config.interfaces]
        batch(list(requests(config, found)), 1)
        dict(config.sysctls)
