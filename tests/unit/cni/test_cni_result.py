"""Results: the shapes of all versions, read into the same values and written from them."""

import json
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni import Address, Dns, Interface, Result, Route
from cni.document import DocumentError, Json, JsonValue, dumps, load_object
from cni.result import VERSIONS, parse

# As in the appendix of SPEC.md, 0.4.0 and 1.1.0.
_OLD: Json = {
    "cniVersion": "0.4.0",
    "interfaces": [
        {"name": "cni0", "mac": "00:11:22:33:44:55"},
        {"name": "eth0", "mac": "00:11:22:33:44:66", "sandbox": "/var/run/netns/blue"},
    ],
    "ips": [
        {"version": "4", "interface": 1, "address": "10.1.0.5/16", "gateway": "10.1.0.1"},
        {"version": "6", "interface": 1, "address": "fd00::5/64"},
    ],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "fd01::/64", "gw": "fd00::1"}],
    "dns": {"nameservers": ["10.1.0.1"], "domain": "a.example", "search": ["b.example"], "options": ["ndots:2"]},
}
_NEW: Json = {
    "cniVersion": "1.1.0",
    "interfaces": [
        {"name": "eth0", "mac": "00:11:22:33:44:66", "sandbox": "/n", "mtu": 1450, "socketPath": "/s", "pciID": "0:1"}
    ],
    "ips": [{"interface": 0, "address": "10.1.0.5/16", "gateway": "10.1.0.1"}],
    "routes": [
        {"dst": "10.2.0.0/16", "gw": "10.1.0.1", "mtu": 1400, "advmss": 1360, "priority": 7, "table": 0, "scope": 253}
    ],
}


def test_the_values_of_0_4_0() -> None:
    assert parse(_OLD, "0.4.0") == Result(
        interfaces=(
            Interface("cni0", mac="00:11:22:33:44:55"),
            Interface("eth0", mac="00:11:22:33:44:66", sandbox="/var/run/netns/blue"),
        ),
        ips=(
            Address(IPv4Interface("10.1.0.5/16"), ip_address("10.1.0.1"), 1),
            Address(IPv6Interface("fd00::5/64"), None, 1),
        ),
        routes=(Route(IPv4Network("0.0.0.0/0")), Route(IPv6Network("fd01::/64"), ip_address("fd00::1"))),
        dns=Dns(("10.1.0.1",), "a.example", ("b.example",), ("ndots:2",)),
    )


def test_the_values_of_1_1_0() -> None:
    assert parse(_NEW, "1.1.0") == Result(
        interfaces=(Interface("eth0", "00:11:22:33:44:66", 1450, "/n", "/s", "0:1"),),
        ips=(Address(IPv4Interface("10.1.0.5/16"), ip_address("10.1.0.1"), 0),),
        routes=(Route(IPv4Network("10.2.0.0/16"), ip_address("10.1.0.1"), 1400, 1360, 7, 0, 253),),
    )


@pytest.mark.parametrize("document", [_OLD, _NEW])
def test_written_as_it_was(document: Json) -> None:
    version = str(document["cniVersion"])
    assert parse(document, version).document(version) == document


def test_written_as_another_version() -> None:
    written = parse(_NEW, "1.1.0").document("0.3.1")
    assert written["cniVersion"] == "0.3.1"
    assert written["interfaces"] == [{"name": "eth0", "mac": "00:11:22:33:44:66", "sandbox": "/n"}]
    assert written["ips"] == [{"version": "4", "interface": 0, "address": "10.1.0.5/16", "gateway": "10.1.0.1"}]
    assert "version" not in json.dumps(parse(_OLD, "0.4.0").document("1.0.0")["ips"])


def test_empty_fields_and_nulls_are_none() -> None:
    empty: Json = {"interfaces": None, "ips": [], "routes": None, "dns": {"search": None, "domain": ""}}
    assert parse(empty, "0.4.0") == Result()
    assert Result().document("1.1.0") == {"cniVersion": "1.1.0"}
    assert parse({"ips": [{"address": "10.0.0.1/8", "gateway": "", "interface": None}]}, "1.0.0").ips == (
        Address(IPv4Interface("10.0.0.1/8")),
    )


def test_host_bits_of_a_destination_do_not_matter() -> None:
    assert parse({"routes": [{"dst": "10.1.2.3/8"}]}, "1.0.0").routes == (Route(IPv4Network("10.0.0.0/8")),)


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", "10.0.0.1/255.0.0.0", "10.0.0.1/", "10.0.0.1/-1", "fe80::1%eth0/64", "010.0.0.1/8", "1/8", ""],
)
def test_addresses_that_go_does_not_take(address: str) -> None:
    with pytest.raises(DocumentError, match="must be an address with a prefix length"):
        parse({"ips": [{"address": address}]}, "1.0.0")


def _addresses(version: int) -> st.SearchStrategy[Address]:
    texts = st.ip_addresses(v=4 if version == 4 else 6).map(str)
    lengths = st.integers(0, 32 if version == 4 else 128)
    prefixes = st.tuples(texts, lengths).map(lambda pair: ip_interface(f"{pair[0]}/{pair[1]}"))
    return st.builds(
        Address, prefixes, st.none() | texts.map(ip_address), st.none() | st.integers(min_value=0, max_value=99)
    )


def _routes(version: int) -> st.SearchStrategy[Route]:
    texts = st.ip_addresses(v=4 if version == 4 else 6).map(str)
    lengths = st.integers(0, 32 if version == 4 else 128)
    networks = st.tuples(texts, lengths).map(lambda pair: ip_network(f"{pair[0]}/{pair[1]}", strict=False))
    numbers = st.integers(0, 2**32 - 1)
    return st.builds(
        Route,
        networks,
        st.none() | texts.map(ip_address),
        numbers,
        numbers,
        numbers,
        st.none() | numbers,
        st.none() | numbers,
    )


_TEXTS = st.lists(st.text(), max_size=3).map(tuple)
_BASIC = st.builds(Interface, name=st.text(), mac=st.text(), sandbox=st.text())
_FULL = st.builds(
    Interface, st.text(), st.text(), st.integers(0, 2**31), st.text(), socket_path=st.text(), pci_id=st.text()
)


def _results(interfaces: st.SearchStrategy[Interface]) -> st.SearchStrategy[Result]:
    return st.builds(
        Result,
        interfaces=st.lists(interfaces, max_size=3).map(tuple),
        ips=st.lists(_addresses(4) | _addresses(6), max_size=3).map(tuple),
        routes=st.lists(_routes(4) | _routes(6), max_size=3).map(tuple),
        dns=st.builds(Dns, _TEXTS, st.text(), _TEXTS, _TEXTS),
    )


def _through(result: Result, version: str) -> Result:
    """Written, and read again by somebody who believes it to be of the oldest version."""
    return parse(load_object(dumps(result.document(version))), VERSIONS[0])


@given(result=_results(_FULL), version=st.sampled_from(["1.0.0", "1.1.0"]))
def test_round_trip_since_1_0_0(result: Result, version: str) -> None:
    assert _through(result, version) == result


@given(result=_results(_BASIC), version=st.sampled_from(VERSIONS))
def test_round_trip_through_every_version(result: Result, version: str) -> None:
    assert _through(result, version) == result


@given(result=_results(_FULL), version=st.sampled_from(VERSIONS))
def test_converting_twice_is_converting_once(result: Result, version: str) -> None:
    once = _through(result, version)
    assert _through(once, version) == once


_JSON: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "mtu", "address", "gateway", "interface", "dst", "gw", "nameservers", "domain"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=10,
)


@given(document=st.dictionaries(st.sampled_from(["interfaces", "ips", "routes", "dns", "cniVersion"]), _JSON))
def test_no_document_does_more_than_be_refused(document: Json) -> None:
    try:
        found = parse(document, "1.0.0")
    except DocumentError:
        return
    assert _through(found, "1.1.0") == found
