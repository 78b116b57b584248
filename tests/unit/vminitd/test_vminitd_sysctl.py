"""Settings of the network: which of a specification they are, and that they are set or named."""

import json
from pathlib import Path

import pytest

from vminitd.errors import RequestError
from vminitd.spec import Json
from vminitd.sysctl import apply, without_network


def test_only_the_network_s_are_taken_out() -> None:
    spec: Json = {
        "a": 1,
        "linux": {"x": 2, "sysctl": {"net.ipv4.ip_forward": "1", "kernel.shmmax": "5", "network": "x"}},
    }
    rest, network = without_network(spec)
    assert rest == {"a": 1, "linux": {"x": 2, "sysctl": {"kernel.shmmax": "5", "network": "x"}}}
    assert network == {"net.ipv4.ip_forward": "1"}
    assert "net.ipv4.ip_forward" in json.dumps(spec)


@pytest.mark.parametrize("spec", [{}, {"linux": None}, {"linux": {}}, {"linux": {"sysctl": None}}, {"linux": []}])
def test_no_settings(spec: dict[str, object]) -> None:
    assert without_network(spec) == (spec, {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("net.", "1"),
        ("net..x", "1"),
        ("net.ipv4/../../kernel", "1"),
        ("net.ipv4.a b", "1"),
        ("net.ipv4.x\n", "1"),
        ("net.ipv4.x", 1),
    ],
)
def test_what_is_no_setting_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(RequestError, match="cannot be set"):
        without_network({"linux": {"sysctl": {name: value}}})  # type: ignore[dict-item]


def test_they_are_written(tmp_path: Path) -> None:
    file = tmp_path / "net" / "ipv4" / "ip_forward"
    file.parent.mkdir(parents=True)
    file.write_text("0")
    apply({"net.ipv4.ip_forward": "1"}, str(tmp_path))
    assert file.read_text() == "1"


def test_one_that_the_kernel_does_not_have_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"the sysctl net\.ipv4\.nothing cannot be set to '1': No such file"):
        apply({"net.ipv4.nothing": "1"}, str(tmp_path))
