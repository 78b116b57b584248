"""What an import of netlink costs: `delete` pays it after a crash."""

from tests.unit.ttrpc.test_ttrpc_imports import modules_after


def test_it_loads_itself_alone() -> None:
    added = modules_after("from netlink import message, rtnl") - modules_after("import __future__, errno, struct")
    assert added == {"netlink", "netlink.attribute", "netlink.message", "netlink.rtnl"}


def test_so_does_what_takes_a_network_back() -> None:
    own = modules_after("import __future__, contextlib, errno, fcntl, struct, time, _socket")
    added = modules_after("from shim.network import tap") - own
    assert {name for name in added if not name.startswith(("netlink", "shim"))} == set()
