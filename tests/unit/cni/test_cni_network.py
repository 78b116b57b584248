"""Network configurations: what a file may say, and how the one of a name is found among others."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni import ConfigError, NetworkNotFound, load, parse
from cni.document import JsonValue, load_object
from cni.network import SUPPORTED, read

_PLUGINS = [{"type": "bridge"}]


def _write(directory: Path, file: str, document: object) -> Path:
    path = directory / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def _list(name: str, **more: object) -> dict[str, object]:
    return {"cniVersion": "1.0.0", "name": name, "plugins": _PLUGINS} | more


def test_a_list(tmp_path: Path) -> None:
    path = _write(tmp_path, "10-a.conflist", _list("a", disableCheck=True, disableGC="True", extra=1))
    found = load(tmp_path, "a")
    assert (found.name, found.cni_version, found.source) == ("a", "1.0.0", str(path))
    assert (found.disable_check, found.disable_gc) == (True, True)
    assert [plugin.conf for plugin in found.plugins] == [{"type": "bridge"}]
    assert found.raw == path.read_bytes()
    assert found.capabilities == frozenset()


@pytest.mark.parametrize("file", ["a.conf", "a.json"])
def test_a_single_plugin_becomes_a_list(tmp_path: Path, file: str) -> None:
    conf = {"cniVersion": "0.4.0", "name": "a", "type": "ptp", "capabilities": {"ips": True, "mac": False}, "mtu": 1450}
    _write(tmp_path, file, conf)
    found = load(tmp_path, "a")
    assert [(plugin.type, plugin.conf) for plugin in found.plugins] == [("ptp", conf)]
    assert found.capabilities == {"ips"}
    assert load_object(found.raw) == {"name": "a", "cniVersion": "0.4.0", "plugins": [conf]}
    assert parse(found.raw, found.source) == found


def test_a_list_in_a_file_of_the_other_kind(tmp_path: Path) -> None:
    _write(tmp_path, "a.conf", _list("a"))
    assert [plugin.type for plugin in load(tmp_path, "a").plugins] == ["bridge"]


@pytest.mark.parametrize(
    ("said", "chosen"),
    [
        ({"cniVersion": "0.3.1"}, "0.3.1"),
        ({"cniVersion": "1.1.0"}, "1.1.0"),
        ({"cniVersion": "0.4.0", "cniVersions": ["0.3.1", "1.0.0"]}, "1.0.0"),
        ({"cniVersion": "0.4.0", "cniVersions": ["9.9.9", "0.3.1"]}, "0.4.0"),
        ({"cniVersion": "2.0.0", "cniVersions": ["1.1.0", "1.0.0", "2.0.0"]}, "1.1.0"),
        ({"cniVersions": ["0.4.0"]}, "0.4.0"),
    ],
)
def test_the_newest_version_that_is_known(said: dict[str, object], chosen: str) -> None:
    assert parse(json.dumps({"name": "a", "plugins": _PLUGINS} | said).encode(), "x").cni_version == chosen


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("", r"line 1, column 1: Expecting value"),
        ('{"name": "a",\n "plugins": [}', r"line 2, column 14: Expecting value"),
        ("[]", "it is a list, and must be an object"),
        ("\ufeff{}", "line 1, column 1: Unexpected UTF-8 BOM"),
        ({"cniVersion": "1.0.0", "plugins": _PLUGINS}, "the network has no name"),
        (_list("a/b"), r"the network name 'a/b' is not allowed: it may have letters"),
        (_list(".a"), "the network name '.a' is not allowed"),
        ({"name": "a", "plugins": _PLUGINS}, r"there is no cniVersion, which means 0\.1\.0: it must be one of 0\.3\.1"),
        (
            _list("a", cniVersion="0.2.0"),
            r"cniVersion is '0\.2\.0', and must be one of 0\.3\.1, 0\.4\.0, 1\.0\.0, 1\.1",
        ),
        (_list("a", cniVersion=1), "cniVersion is 1, and must be a text"),
        (_list("a", cniVersions="1.0.0"), "cniVersions must be a list of texts"),
        (_list("a", plugins=[]), "the network 'a' has no plugins"),
        (_list("a", plugins=None), "the network 'a' has no plugins"),
        (_list("a", plugins={}), "plugins is an object, and must be a list"),
        (_list("a", plugins=["bridge"]), r"plugins\[0\] is \"bridge\", and must be an object"),
        (_list("a", plugins=[{}]), r"plugins\[0\]\.type is '', and must be the name of a plugin's program"),
        (_list("a", plugins=[{"type": "../sh"}]), r"plugins\[0\]\.type is '../sh'"),
        (_list("a", plugins=[{"type": ".."}]), r"plugins\[0\]\.type is '\.\.'"),
        (_list("a", plugins=[{"type": 3}]), r"plugins\[0\]\.type is 3, and must be a text"),
        (
            _list("a", plugins=[{"type": "b", "capabilities": {"mac": "yes"}}]),
            r"plugins\[0\]\.capabilities\.mac is \"yes\", and must",
        ),
        (_list("a", disableCheck="perhaps"), 'disableCheck is "perhaps", and must be true or false'),
        (_list("a", disableGC=1), "disableGC is 1, and must be true or false"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_its_name(tmp_path: Path, document: object, words: str) -> None:
    path = _write(tmp_path, "10-a.conflist", document)
    with pytest.raises(ConfigError, match=f"^{path}: {words}"):
        read(path)


def test_no_directory_no_files_no_such_network(tmp_path: Path) -> None:
    with pytest.raises(NetworkNotFound, match=f"no network 'a' is configured in {tmp_path}/net.d ") as caught:
        load(tmp_path / "net.d", "a")
    assert caught.value.hint == "put its configuration there, as a.conflist"
    _write(tmp_path, "10.conflist", _list("b"))
    _write(tmp_path, "20.conf", {"cniVersion": "0.4.0", "name": "c", "type": "ptp"})
    _write(tmp_path, "30.conflist.disabled", _list("a"))
    with pytest.raises(NetworkNotFound, match=f"no network 'a' is configured in {tmp_path}; there are b, c"):
        load(tmp_path, "a")


def test_a_broken_file_of_another_name_is_in_nobody_s_way(tmp_path: Path) -> None:
    broken = _write(tmp_path, "00-broken.conflist", "{")
    _write(tmp_path, "01-wrong.conflist", _list("b", cniVersion="7"))
    _write(tmp_path, "10.conflist", _list("a"))
    assert load(tmp_path, "a").name == "a"
    with pytest.raises(NetworkNotFound, match=f"; there are a; {broken}: line 1, column 2: Expecting property name"):
        load(tmp_path, "c")


def test_a_wrong_file_of_the_name_is_told_at_once(tmp_path: Path) -> None:
    wrong = _write(tmp_path, "20.conflist", _list("a", cniVersion="7"))
    _write(tmp_path, "10.conflist", _list("a"))
    with pytest.raises(ConfigError, match=f"^{wrong}: cniVersion is '7'"):
        load(tmp_path, "a")


def test_two_files_of_one_name(tmp_path: Path) -> None:
    one, two = _write(tmp_path, "20.conflist", _list("a")), _write(tmp_path, "10.json", _list("a"))
    with pytest.raises(ConfigError, match=f"2 files configure a network 'a': {one}, {two} \\(leave the name"):
        load(tmp_path, "a")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.conflist").mkdir()
    (tmp_path / "b.conflist").symlink_to("nowhere")
    _write(tmp_path, "c.conflist", '"' + "x" * (4 << 20) + '"')
    with pytest.raises(NetworkNotFound) as caught:
        load(tmp_path, "a")
    assert f"{tmp_path}/a.conflist cannot be read: Is a directory" in caught.value.message
    assert f"{tmp_path}/b.conflist cannot be read: No such file or directory" in caught.value.message
    assert f"{tmp_path}/c.conflist has more than 4194304 bytes" in caught.value.message


def test_plugins_in_the_directory_beside_it(tmp_path: Path) -> None:
    """CNI 1.1: `loadOnlyInlinedPlugins`, which is false unless it is there."""
    path = _write(tmp_path, "10-a.conflist", _list("a", cniVersion="1.1.0"))
    _write(tmp_path, "a/20.conf", {"type": "tuning"})
    _write(tmp_path, "a/10.conf", {"type": "portmap", "capabilities": {"portMappings": True}})
    _write(tmp_path, "a/30.json", {"type": "not one"})
    found = load(tmp_path, "a")
    assert [plugin.type for plugin in found.plugins] == ["bridge", "portmap", "tuning"]
    assert found.capabilities == {"portMappings"}
    # What is cached says all of it, though the files may have gone by the time of DEL.
    assert [plugin.type for plugin in parse(found.raw, "cache").plugins] == ["bridge", "portmap", "tuning"]
    _write(tmp_path, "10-a.conflist", _list("a", loadOnlyInlinedPlugins=True))
    assert [plugin.type for plugin in load(tmp_path, "a").plugins] == ["bridge"]
    _write(tmp_path, "10-a.conflist", {"cniVersion": "1.1.0", "name": "a"})
    assert [plugin.type for plugin in load(tmp_path, "a").plugins] == ["portmap", "tuning"]
    broken = _write(tmp_path, "a/40.conf", "{")
    with pytest.raises(ConfigError, match=f"^{broken}: line 1, column 2"):
        load(tmp_path, "a")
    assert read(_write(tmp_path, "x/10-a.conflist", path.read_text() and _list("a"))).name == "a"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
_CONF = st.dictionaries(st.text(), _JSON, max_size=4)
_NAME = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,20}", fullmatch=True)


@given(name=_NAME, version=st.sampled_from(SUPPORTED), confs=st.lists(_CONF, min_size=1, max_size=3), kind=_NAME)
def test_whatever_plugins_are_told_is_kept(
    name: str, version: str, confs: list[dict[str, JsonValue]], kind: str
) -> None:
    """Unknown fields are passed on as they are (SPEC.md, section 1), through the cache, too."""
    plugins = [conf | {"type": kind, "capabilities": {"mac": True}} for conf in confs]
    text = json.dumps({"name": name, "cniVersion": version, "plugins": plugins}).encode()
    found = parse(text, "x")
    assert [plugin.conf for plugin in found.plugins] == plugins
    assert (found.name, found.cni_version, found.raw) == (name, version, text)


@given(text=st.binary(max_size=64) | _JSON.map(lambda value: json.dumps(value).encode()))
def test_no_text_does_more_than_be_refused(text: bytes) -> None:
    assert _refusal(text).startswith("the file: ")


@given(
    found=st.fixed_dictionaries(
        {},
        optional={
            key: _JSON | st.lists(_CONF | st.fixed_dictionaries({"type": _JSON, "capabilities": _JSON}))
            for key in ("name", "cniVersion", "cniVersions", "plugins", "type", "disableCheck", "capabilities")
        },
    )
)
def test_no_value_does_more_than_be_refused(found: dict[str, JsonValue]) -> None:
    text = json.dumps({"name": "a", "cniVersion": "1.0.0", "plugins": _PLUGINS} | found).encode()
    assert _refusal(text).startswith("the file: ")


def _refusal(text: bytes) -> str:
    """What is said of it; the same words where nothing is."""
    try:
        parse(text, "the file")
    except ConfigError as error:
        return str(error)
    return "the file: it is one"
