"""The cache of results: libcni's files, whole or not at all."""

import base64
import json
import os
from pathlib import Path

import pytest

from cni import Attachment, CachedAttachment, CacheError, Result, parse
from cni.cache import Cache
from cni.document import Json
from cni.result import parse as parse_result
from tests.unit.cni.fakes import made

_CONF = b'{"cniVersion": "1.0.0",\n "name": "net", "plugins": [{"type": "bridge"}]}'
_NETWORK = parse(_CONF, "x")
_FULL = Attachment(
    "c1", "/run/netns/n", "eth0", args=(("K", "v"), ("L", "w")), capabilities={"mac": "02:00:00:00:00:01"}
)


def _entry(attachment: Attachment = _FULL, result: Result | None = None) -> CachedAttachment:
    return CachedAttachment(_NETWORK, attachment, result)


def _write(directory: Path, file: str, document: object) -> None:
    results = directory / "results"
    results.mkdir(exist_ok=True)
    (results / file).write_text(document if isinstance(document, str) else json.dumps(document))


def _libcni(**changes: object) -> dict[str, object]:
    """As libcni 1.3.1 has written it."""
    return {
        "kind": "cniCacheV1",
        "containerId": "c1",
        "config": base64.b64encode(_CONF).decode(),
        "ifName": "eth0",
        "networkName": "net",
        "netns": "/run/netns/n",
        "result": made(),
    } | changes


def test_the_file_is_libcni_s(tmp_path: Path) -> None:
    Cache(tmp_path / "a" / "cni").write(_entry(result=parse_result(made(), "1.0.0")))
    path = tmp_path / "a" / "cni" / "results" / "net-c1-eth0"
    text = path.read_text()
    assert json.loads(text) == _libcni(cniArgs=[["K", "v"], ["L", "w"]], capabilityArgs={"mac": "02:00:00:00:00:01"})
    assert list(json.loads(text)) == [
        "kind", "containerId", "config", "ifName", "networkName", "netns", "cniArgs", "capabilityArgs", "result"
    ]  # fmt: skip
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert os.listdir(tmp_path / "a" / "cni") == ["results"]


def test_what_is_empty_is_left_out(tmp_path: Path) -> None:
    Cache(tmp_path).write(_entry(Attachment("c1", "", "eth0")))
    found = json.loads((tmp_path / "results" / "net-c1-eth0").read_text())
    assert list(found) == ["kind", "containerId", "config", "ifName", "networkName"]


@pytest.mark.parametrize("result", [None, parse_result(made(), "1.0.0")])
@pytest.mark.parametrize("attachment", [_FULL, Attachment("c1", "", "eth0")])
def test_read_as_written(tmp_path: Path, attachment: Attachment, result: Result | None) -> None:
    cache = Cache(tmp_path)
    cache.write(_entry(attachment, result))
    found = cache.read("net", Attachment("c1", "somewhere else", "eth0"))
    assert found is not None
    assert (found.attachment, found.result, found.network.raw) == (attachment, result, _CONF)
    assert cache.entries() == [found]
    assert cache.read("net", Attachment("c1", "", "eth1")) is None
    cache.remove("net", attachment)
    cache.remove("net", attachment)
    assert cache.entries() == []


def test_an_entry_of_libcni_s(tmp_path: Path) -> None:
    _write(tmp_path, "net-c1-eth0", _libcni())
    (found,) = Cache(tmp_path).entries()
    assert found.attachment == Attachment("c1", "/run/netns/n", "eth0")
    assert found.result == parse_result(made(), "1.0.0")


def test_an_entry_of_a_single_configuration(tmp_path: Path) -> None:
    conf = b'{"cniVersion": "0.3.1", "name": "net", "type": "ptp"}'
    _write(tmp_path, "net-c1-eth0", _libcni(config=base64.b64encode(conf).decode(), result=made(version="0.3.1")))
    (found,) = Cache(tmp_path).entries()
    assert [plugin.type for plugin in found.network.plugins] == ["ptp"]


@pytest.mark.parametrize(
    "document",
    [
        "",
        "{",
        "[]",
        "{}",
        made(),  # what libcni wrote before 0.7
        _libcni(kind="cniCacheV2"),
        _libcni(config="!"),
        _libcni(config=""),
        _libcni(config=base64.b64encode(b'{"name": "net", "plugins": []}').decode()),
        _libcni(networkName="other"),
        _libcni(containerId=""),
        _libcni(ifName=7),
        _libcni(cniArgs=[["K"]]),
    ],
)
def test_what_is_no_entry_is_passed_over(tmp_path: Path, document: object) -> None:
    _write(tmp_path, "net-c1-eth0", document)
    _write(tmp_path, "net-c2-eth0", _libcni(containerId="c2"))
    (tmp_path / "results" / "directory").mkdir()
    os.mkfifo(tmp_path / "results" / "pipe")
    cache = Cache(tmp_path)
    assert cache.read("net", _FULL) is None
    assert [entry.attachment.container_id for entry in cache.entries()] == ["c2"]


@pytest.mark.parametrize("result", [{"ips": [{"address": "x"}]}, {"cniVersion": "7"}, [], None, {}])
def test_a_result_that_nobody_understands_is_none(tmp_path: Path, result: object) -> None:
    _write(tmp_path, "net-c1-eth0", _libcni(result=result))
    (found,) = Cache(tmp_path).entries()
    assert found.result is None


def test_no_cache_has_no_entries(tmp_path: Path) -> None:
    assert Cache(tmp_path / "none").entries() == []
    (tmp_path / "results").touch()
    assert Cache(tmp_path).entries() == []


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)
    cache.write(_entry())

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", full)
    with pytest.raises(CacheError, match=f"the CNI result {tmp_path}/results/net-c1-eth0 cannot be written: No space"):
        cache.write(_entry(result=parse_result(made(), "1.0.0")))
    (found,) = cache.entries()
    assert found.result is None
    assert os.listdir(tmp_path) == ["results"]


def test_a_name_that_is_too_long_for_a_file(tmp_path: Path) -> None:
    long: Json = {}
    entry = _entry(Attachment("c" * 250, "", "eth0", capabilities=long))
    with pytest.raises(CacheError, match="cannot be written: File name too long"):
        Cache(tmp_path).write(entry)
    assert Cache(tmp_path).read("net", entry.attachment) is None
