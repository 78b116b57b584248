"""What CNI's tuning plugin sets, by a conflist."""

import json

from cni import parse
from shim.network.tuning import sysctls


def test_the_settings_of_all_tuning_plugins_with_the_interface_s_name() -> None:
    network = parse(
        json.dumps(
            {
                "cniVersion": "1.0.0",
                "name": "net",
                "plugins": [
                    {"type": "bridge", "sysctl": {"net.core.somaxconn": "1"}},
                    {"type": "tuning", "sysctl": {"net.core.somaxconn": "500", "net/ipv4/conf/IFNAME/arp_filter": "1"}},
                    {"type": "tuning", "mtu": 1400},
                    {"type": "tuning", "sysctl": {"net.core.somaxconn": "600"}},
                ],
            }
        ).encode(),
        "net.conflist",
    )
    assert sysctls(network, "eth0") == {"net.core.somaxconn": "600", "net.ipv4.conf.eth0.arp_filter": "1"}
