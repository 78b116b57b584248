"""What the tests take for a rule that a container has left, and what CNI's plugins leave for good."""

import re

from harness.firewall import KEPT, parse

_ONE_CONTAINER = """
# Warning: table ip nat is managed by iptables-nft, do not touch!
table ip nat {
    chain CNI-5a1527d2fe74c1a342e29c75 {
        ip daddr 10.5.0.0/24  counter accept
    }

    chain POSTROUTING {
        type nat hook postrouting priority srcnat; policy accept;
         counter jump CNI-HOSTPORT-MASQ
        ip saddr 10.5.0.2  counter jump CNI-5a1527d2fe74c1a342e29c75
    }

    chain CNI-HOSTPORT-SETMARK {
         counter meta mark set mark or 0x2000
    }

    chain CNI-HOSTPORT-MASQ {
        meta mark & 0x00002000 == 0x00002000 counter masquerade
    }

    chain CNI-HOSTPORT-DNAT {
        meta l4proto tcp  tcp dport 8080 counter jump CNI-DN-5a1527d2fe74c1a342e29
    }

    chain OUTPUT {
        type nat hook output priority -100; policy accept;
        fib daddr type local counter jump CNI-HOSTPORT-DNAT
    }
}
table ip filter {
    chain CNI-FORWARD {
         counter jump CNI-ADMIN
        ip saddr 10.5.0.2 counter accept
    }

    chain CNI-ADMIN {
    }
}
"""


def test_what_is_a_container_s_counts_and_what_is_the_plugins_does_not() -> None:
    counts = [line for line in parse(_ONE_CONTAINER) if not any(re.fullmatch(kept, line) for kept in KEPT)]
    assert counts == [
        "ip nat CNI-5a1527d2fe74c1a342e29c75",
        "ip nat CNI-5a1527d2fe74c1a342e29c75: ip daddr 10.5.0.0/24  counter accept",
        "ip nat POSTROUTING: ip saddr 10.5.0.2  counter jump CNI-5a1527d2fe74c1a342e29c75",
        "ip nat CNI-HOSTPORT-DNAT: meta l4proto tcp  tcp dport 8080 counter jump CNI-DN-5a1527d2fe74c1a342e29",
        "ip filter CNI-FORWARD: ip saddr 10.5.0.2 counter accept",
    ]
