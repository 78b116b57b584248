"""ADD, CHECK and DEL over a chain: who is called with what, in which order, and what is kept."""

import json
import os
from pathlib import Path

import pytest

from cni import (
    ArgumentError,
    Attachment,
    CacheError,
    NetworkList,
    PluginError,
    PluginMissing,
    Result,
    UnsupportedError,
)
from cni.document import JsonValue, load_object
from tests.unit.cni.fakes import Fakes, error, made, network, on

_PORTS: list[JsonValue] = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]


def _cached_result(fakes: Fakes, name: str = "testnet-c1-eth0") -> object:
    return load_object((fakes.cache_dir / "results" / name).read_bytes()).get("result")


async def test_add_hands_each_plugin_what_the_one_before_has_made(fakes: Fakes) -> None:
    fakes.plugin("first", add=made("10.9.0.2/24"))
    fakes.plugin("second", add=made("10.9.0.3/24"))
    listed = network({"type": "first", "own": {"key": [1, None]}}, {"type": "second", "name": "is replaced"})
    result = await fakes.cni().add(listed, fakes.attachment())
    assert str(result.ips[0].address) == "10.9.0.3/24"
    first, second = fakes.calls()
    assert first.request == {"type": "first", "own": {"key": [1, None]}, "name": "testnet", "cniVersion": "1.0.0"}
    assert second.request == {
        "type": "second",
        "name": "testnet",
        "cniVersion": "1.0.0",
        "prevResult": made("10.9.0.2/24"),
    }
    assert _cached_result(fakes) == made("10.9.0.3/24")


async def test_the_environment_has_the_parameters_and_ours(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes.plugin("only", add=made())
    monkeypatch.setenv("CNI_COMMAND", "DEL")
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/x")
    attachment = Attachment("c1", fakes.netns, "net7", args=(("IgnoreUnknown", "1"), ("IP", "10.9.0.7")))
    await fakes.cni().add(network("only"), attachment)
    (call,) = fakes.calls()
    told = {key: value for key, value in call.environ.items() if key.startswith("CNI_")}
    assert told == {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": fakes.netns,
        "CNI_IFNAME": "net7",
        "CNI_ARGS": "IgnoreUnknown=1;IP=10.9.0.7",
        "CNI_PATH": str(fakes.plugin_dir),
    }
    assert call.environ["PATH"] == os.environ["PATH"]
    assert call.environ["DBUS_SYSTEM_BUS_ADDRESS"] == "unix:path=/x"


async def test_only_declared_capabilities_are_told(fakes: Fakes) -> None:
    for name in ("deaf", "ports", "both"):
        fakes.plugin(name, add=made())
    listed = network(
        "deaf",
        {"type": "ports", "capabilities": {"portMappings": True, "mac": False}},
        {"type": "both", "capabilities": {"portMappings": True, "mac": True, "bandwidth": True}},
    )
    assert listed.capabilities == {"portMappings", "mac", "bandwidth"}
    given = Attachment("c1", fakes.netns, "eth0", capabilities={"portMappings": _PORTS, "mac": "02:00:00:00:00:01"})
    await fakes.cni().add(listed, given)
    told = [call.request.get("runtimeConfig", "nothing") for call in fakes.calls()]
    assert told == ["nothing", {"portMappings": _PORTS}, {"portMappings": _PORTS, "mac": "02:00:00:00:00:01"}]


async def test_delete_goes_backwards_with_what_add_has_made(fakes: Fakes) -> None:
    for name in ("first", "second"):
        fakes.plugin(name, add=made())
    listed = network("first", {"type": "second", "capabilities": {"portMappings": True}})
    attachment = Attachment("c1", fakes.netns, "eth0", args=(("A", "b"),), capabilities={"portMappings": _PORTS})
    runner = fakes.cni()
    await runner.add(listed, attachment)
    await runner.delete(listed, fakes.attachment())  # who cleans up after a crash knows neither args nor ports
    assert fakes.said() == ["ADD first", "ADD second", "DEL second", "DEL first"]
    _, _, second, first = fakes.calls()
    assert second.request["prevResult"] == first.request["prevResult"] == made()
    assert second.request["runtimeConfig"] == {"portMappings": _PORTS}
    assert second.environ["CNI_ARGS"] == "A=b"
    assert fakes.entries() == []


async def test_no_result_is_told_to_a_delete_of_0_3_1(fakes: Fakes) -> None:
    fakes.plugin("only", add=made(version="0.3.1"))
    listed = network("only", version="0.3.1")
    await fakes.cni().add(listed, fakes.attachment())
    await fakes.cni().delete(listed, fakes.attachment())
    assert "prevResult" not in fakes.calls()[1].request


async def test_deleting_what_is_not_attached_is_no_error(fakes: Fakes) -> None:
    fakes.plugin("only")
    await fakes.cni().delete(network("only"), fakes.attachment())
    assert fakes.said() == ["DEL only"]
    assert "prevResult" not in fakes.calls()[0].request


async def test_delete_goes_on_after_a_plugin_that_fails(fakes: Fakes) -> None:
    fakes.plugin("first", on("DEL", error(5, "first is stuck")), add=made())
    fakes.plugin("second", add=made())
    fakes.plugin("third", on("DEL", error(11, "third is stuck", "busy")), add=made())
    listed = network("first", "second", "third")
    runner = fakes.cni()
    await runner.add(listed, fakes.attachment())
    with pytest.raises(PluginError, match="third is stuck; busy") as caught:
        await runner.delete(listed, fakes.attachment())
    assert (caught.value.code, caught.value.plugin, caught.value.command) == (11, "third", "DEL")
    assert "trying again later" in str(caught.value)
    assert fakes.said()[3:] == ["DEL third", "DEL second", "DEL first"]
    assert fakes.entries() == ["testnet-c1-eth0"]
    for name in ("first", "third"):
        fakes.plugin(name)
    await runner.delete(listed, fakes.attachment())
    assert fakes.entries() == []
    assert fakes.calls()[-1].request["prevResult"] == made()


async def test_a_container_that_a_plugin_does_not_know_is_deleted(fakes: Fakes) -> None:
    fakes.plugin("only", on("DEL", error(3, "no such container")), add=made())
    runner = fakes.cni()
    await runner.add(network("only"), fakes.attachment())
    await runner.delete(network("only"), fakes.attachment())
    assert fakes.entries() == []


async def test_what_a_failed_add_has_made_is_undone(fakes: Fakes) -> None:
    fakes.plugin("first", add=made())
    fakes.plugin("second", on("ADD", error(7, "no such thing", "really")))
    fakes.plugin("third", add=made())
    with pytest.raises(PluginError) as caught:
        await fakes.cni().add(network("first", "second", "third"), fakes.attachment())
    failed = caught.value
    assert (failed.code, failed.msg, failed.details) == (7, "no such thing", "really")
    assert str(failed) == (
        "CNI ADD of network 'testnet' (/net.d/test.conflist): plugin 'second' failed with code 7: no such thing; really"
    )
    assert fakes.said() == ["ADD first", "ADD second", "DEL third", "DEL second", "DEL first"]
    assert [call.request.get("prevResult") for call in fakes.calls()[2:]] == [made()] * 3
    assert fakes.entries() == []


async def test_the_first_error_is_told_when_the_undoing_fails_too(fakes: Fakes) -> None:
    fakes.plugin("first", on("DEL", error(5, "cannot undo")), add=made())
    fakes.plugin("second", on("ADD", error(7, "the first error")))
    with pytest.raises(PluginError, match="the first error"):
        await fakes.cni().add(network("first", "second"), fakes.attachment())
    assert fakes.entries() == ["testnet-c1-eth0"]
    assert _cached_result(fakes) == made()


async def test_an_entry_is_there_before_the_first_plugin_runs(fakes: Fakes) -> None:
    seen = fakes.cache_dir / "seen"
    entry = fakes.cache_dir / "results" / "testnet-c1-eth0"
    fakes.plugin("first", on("ADD", f"cp {entry} {seen}1"), add=made())
    fakes.plugin("second", on("ADD", f"cp {entry} {seen}2"), add=made("10.9.0.3/24"))
    await fakes.cni().add(network("first", "second"), fakes.attachment())
    assert "result" not in load_object(Path(f"{seen}1").read_bytes())
    assert load_object(Path(f"{seen}2").read_bytes())["result"] == made()


async def test_a_retry_deletes_first(fakes: Fakes) -> None:
    fakes.plugin("old", add=made())
    fakes.plugin("new", add=made("10.9.0.3/24"))
    runner = fakes.cni()
    await runner.add(network("old"), fakes.attachment())
    await runner.add(network("new"), fakes.attachment())  # the configuration has changed meanwhile
    assert fakes.said() == ["ADD old", "DEL old", "ADD new"]
    assert fakes.calls()[1].request["prevResult"] == made()


async def test_a_retry_is_not_stopped_by_what_cannot_be_undone(fakes: Fakes) -> None:
    old = fakes.plugin("old", add=made())
    fakes.plugin("new", add=made())
    runner = fakes.cni()
    await runner.add(network("old"), fakes.attachment())
    old.unlink()
    await runner.add(network("new"), fakes.attachment())
    assert fakes.said() == ["ADD old", "ADD new"]


async def test_attachments_are_apart_by_network_container_and_interface(fakes: Fakes) -> None:
    fakes.plugin("only", add=made())
    runner = fakes.cni()
    for name, container, ifname in (("a", "c1", "eth0"), ("a", "c1", "eth1"), ("a", "c2", "eth0"), ("b", "c1", "eth0")):
        await runner.add(network("only", name=name), fakes.attachment(container, ifname))
    assert fakes.said() == ["ADD only"] * 4
    assert fakes.entries() == ["a-c1-eth0", "a-c1-eth1", "a-c2-eth0", "b-c1-eth0"]


async def test_check_asks_each_plugin_with_what_add_has_made(fakes: Fakes) -> None:
    fakes.plugin("first", add=made())
    fakes.plugin("second", on("CHECK", error(100, "not as it was")), add=made("10.9.0.3/24"))
    fakes.plugin("third", add=made("10.9.0.4/24"))
    listed = network("first", "second", "third")
    await fakes.cni().add(listed, fakes.attachment())
    with pytest.raises(PluginError, match="not as it was"):
        await fakes.cni().check(listed, fakes.attachment())
    assert fakes.said()[3:] == ["CHECK first", "CHECK second"]
    assert [call.request["prevResult"] for call in fakes.calls()[3:]] == [made("10.9.0.4/24")] * 2
    assert fakes.entries() == ["testnet-c1-eth0"]


async def test_check_where_there_is_none(fakes: Fakes) -> None:
    fakes.plugin("only")
    runner = fakes.cni()
    with pytest.raises(UnsupportedError, match=r"has cniVersion 0\.3\.1: CHECK came with 0\.4\.0"):
        await runner.check(network("only", version="0.3.1"), fakes.attachment())
    with pytest.raises(
        CacheError, match="no ADD of container 'c1', interface 'eth0' to the network 'testnet' is known"
    ):
        await runner.check(network("only"), fakes.attachment())
    await runner.check(network("only", disableCheck=True), fakes.attachment())
    assert fakes.said() == []


@pytest.mark.parametrize("listed", [network("only", version="0.3.1"), network("only", version="0.4.0")])
async def test_results_are_of_the_configuration_s_version(fakes: Fakes, listed: NetworkList) -> None:
    answer = made(version=listed.cni_version)
    fakes.plugin("only", add={key: value for key, value in answer.items() if key != "cniVersion"})
    fakes.plugin("newer", add=made(version="1.0.0"))
    await fakes.cni().add(network("only", "newer", version=listed.cni_version), fakes.attachment())
    assert fakes.calls()[1].request["prevResult"] == answer
    assert _cached_result(fakes) == answer


async def test_a_namespace_that_is_gone_is_not_named(fakes: Fakes, tmp_path: Path) -> None:
    was = tmp_path / "was-one"
    was.touch()
    fakes.plugin("only")
    for path in (str(was), str(tmp_path / "never"), "", "/nul\0"):
        await fakes.cni().delete(network("only"), Attachment("c1", path, "eth0"))
    assert {call.environ["CNI_NETNS"] for call in fakes.calls()} == {""}


async def test_add_wants_a_network_namespace_and_not_the_host_s(fakes: Fakes, tmp_path: Path) -> None:
    fakes.plugin("only", add=made())
    for path in (str(tmp_path), str(tmp_path / "never"), "/proc/self/ns/mnt", ""):
        with pytest.raises(ArgumentError, match="is no network namespace"):
            await fakes.cni().add(network("only"), Attachment("c1", path, "eth0"))
    for work in (fakes.cni().add, fakes.cni().delete):
        with pytest.raises(ArgumentError, match="the network namespace that CNI plugins run in"):
            await work(network("only"), Attachment("c1", "/proc/self/ns/net", "eth0"))
    assert fakes.said() == []
    assert fakes.entries() == []


@pytest.mark.parametrize("container_id", ["", "-a", "a/b", "a b", "ä", "a\n"])
async def test_ids_that_no_plugin_takes(fakes: Fakes, container_id: str) -> None:
    runner, listed = fakes.cni(), network("only")
    for work in (runner.add, runner.delete, runner.check):
        with pytest.raises(ArgumentError, match="cannot be used with CNI"):
            await work(listed, fakes.attachment(container_id))


@pytest.mark.parametrize("ifname", ["", ".", "..", "a/b", "a:b", "a b", "a\t", "sixteen-letters-", "ä" * 8])
async def test_interface_names_that_the_kernel_does_not_take(fakes: Fakes, ifname: str) -> None:
    with pytest.raises(ArgumentError, match="the interface name"):
        await fakes.cni().add(network("only"), fakes.attachment(ifname=ifname))


@pytest.mark.parametrize("pair", [("", "x"), ("A=B", "x"), ("A", "x;y"), ("A;", "x"), ("A", "\0")])
async def test_arguments_that_cannot_be_told(fakes: Fakes, pair: tuple[str, str]) -> None:
    with pytest.raises(ArgumentError, match="the CNI argument"):
        await fakes.cni().add(network("only"), Attachment("c1", fakes.netns, "eth0", args=(pair,)))


async def test_a_cache_that_cannot_be_written_stops_the_add_before_anything_is_made(fakes: Fakes) -> None:
    fakes.plugin("only", add=made())
    fakes.cache_dir.write_text("a file")
    with pytest.raises(CacheError, match=r"the CNI result .*testnet-c1-eth0 cannot be written"):
        await fakes.cni().add(network("only"), fakes.attachment())
    assert "ADD only" not in fakes.said()


async def test_the_first_directory_with_a_plugin_counts(fakes: Fakes, tmp_path: Path) -> None:
    from cni import Cni

    fakes.plugin("only", add=made())
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd" / "only").mkdir(parents=True)
    dirs = [tmp_path / "none", tmp_path / "empty", tmp_path / "odd", fakes.plugin_dir]
    runner = Cni(plugin_dirs=dirs, cache_dir=fakes.cache_dir, lock=fakes.lock, timeout_s=20)
    await runner.add(network("only"), fakes.attachment())
    assert fakes.calls()[0].environ["CNI_PATH"] == ":".join(map(str, dirs))
    with pytest.raises(PluginMissing, match=f"plugin 'other' is not in {tmp_path}/none, {tmp_path}/empty"):
        await runner.add(network("other"), fakes.attachment())


async def test_null_is_an_empty_result(fakes: Fakes) -> None:
    fakes.plugin("only", on("ADD", "echo null"))
    assert await fakes.cni().add(network("only"), fakes.attachment()) == Result()
    assert json.loads((fakes.cache_dir / "results" / "testnet-c1-eth0").read_text())["result"] == {
        "cniVersion": "1.0.0"
    }
