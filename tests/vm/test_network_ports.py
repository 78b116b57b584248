"""Ports of a container: published ones by the plugin portmap, and those that somebody dials inside its namespace."""

import pytest

from harness import cni, echo
from harness.attached import attached
from harness.box import Box
from harness.inside import inside

_HOST_PORT = 8089
_MAPPINGS = {
    "portMappings": [
        {"hostPort": _HOST_PORT, "containerPort": echo.PORT, "protocol": protocol} for protocol in ("tcp", "udp")
    ]
}


@pytest.mark.on("2")
@pytest.mark.newest_runc
def test_published_ports_answer(box: Box, network_image: str) -> None:
    """From the host by its address and by loopback, from another container, and from the container itself."""
    net = cni.bridge().chained(cni.PORTMAP, cni.FIREWALL)
    with (
        cni.configured(box, net),
        attached(box, net, capabilities=_MAPPINGS) as joined,
        attached(box, net) as other,
        inside(box, *joined.options, image=network_image) as container,
    ):
        host = box.containerd.cell.netns
        container.text(echo.SERVE)
        echo.ready(host, net.ip4, _HOST_PORT)
        for netns, address in ((host, net.ip4), (host, "127.0.0.1"), (other.netns, net.ip4), (other.netns, net.ip6)):
            echo.tcp(netns, address, 300_000, _HOST_PORT)
        echo.udp(other.netns, net.ip4, (1000,), _HOST_PORT)
        assert container.text(f"echo hairpin | socat -t 5 - TCP:{net.ip4}:{_HOST_PORT}") == "hairpin"


@pytest.mark.on("2")
@pytest.mark.newest_runc
def test_loopback_of_the_namespace_is_the_container_s(box: Box, network_image: str) -> None:
    """`crictl port-forward` dials localhost in there."""
    net = cni.bridge()
    with (
        cni.configured(box, net),
        attached(box, net) as joined,
        inside(box, *joined.options, image=network_image) as container,
    ):
        container.text(echo.SERVE)
        for address in ("127.0.0.1", "::1"):
            echo.ready(joined.netns, address)
            for size in (1, 100_000, 2_000_000):
                echo.tcp(joined.netns, address, size)
