"""The configuration file: defaults, every key, and what is not allowed."""

import json
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.config import Between, Config, Text, load, parse
from shim.errors import ConfigError

_SECTIONS = Config()._asdict()
_KEYS = [(section, key) for section, table in _SECTIONS.items() for key in table._fields]
_WHOLE_NUMBERS = [
    (section, key, rule)
    for section, key in _KEYS
    for rule in get_args(_SECTIONS[section].__annotations__[key])
    if isinstance(rule, Between)
]
_TEXTS = [
    (section, key, rule)
    for section, key in _KEYS
    for rule in get_args(_SECTIONS[section].__annotations__[key])
    if isinstance(rule, Text)
]


def _file(section: str, key: str, value: object) -> str:
    return f"[{section}]\n{key} = {json.dumps(value)}\n"


def _get(config: Config, section: str, key: str) -> object:
    value: object = getattr(getattr(config, section), key)
    return value


def test_an_empty_file_is_all_defaults() -> None:
    assert parse("") == parse("[vm]\n[log]\n") == Config()


def test_the_defaults_are_allowed() -> None:
    for section, key in _KEYS:
        assert parse(_file(section, key, _get(Config(), section, key))) == Config()


@pytest.mark.parametrize(("section", "key", "rule"), _WHOLE_NUMBERS)
@given(data=st.data())
def test_whole_numbers(section: str, key: str, rule: Between, data: st.DataObject) -> None:
    value = data.draw(st.integers(rule.low, rule.high) | st.sampled_from([rule.low, rule.high]))
    assert _get(parse(_file(section, key, value)), section, key) == value
    bad = data.draw(
        st.one_of(
            st.integers(max_value=rule.low - 1),
            st.integers(min_value=rule.high + 1),
            st.booleans(),
            st.text(st.characters(max_codepoint=126, min_codepoint=32)),
            st.floats(rule.low, rule.high),
        )
    )
    with pytest.raises(ConfigError) as caught:
        parse(_file(section, key, bad))
    assert f"{section}.{key} = {bad!r}: must be a whole number from {rule.low} to {rule.high}" == caught.value.message


@pytest.mark.parametrize(("section", "key", "rule"), _TEXTS)
@pytest.mark.parametrize("bad", [5, True, ["a"], {"a": 1}, "a\nb", "a\0b", "", "a/b"])
def test_texts(section: str, key: str, rule: Text, bad: object) -> None:
    allowed = (bad == "" and rule.optional) or (bad == "a/b" and not rule.absolute and not rule.program)
    text = f"[{section}]\n{key} = {{a = 1}}" if isinstance(bad, dict) else _file(section, key, bad)
    if allowed:
        assert _get(parse(text), section, key) == bad
        return
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert caught.value.message.startswith(f"{section}.{key} = {bad!r}: must ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[vm]\naccel = 'xen'", "vm.accel = 'xen': must be one of auto, kvm, tcg"),
        ("[vm]\naccel = true", "vm.accel = True: must be one of auto, kvm, tcg"),
        ("[vm]\naccel = ['kvm']", "vm.accel = ['kvm']: must be one of auto, kvm, tcg"),
        ("[vm]\nallow_tcg = 'yes'", "vm.allow_tcg = 'yes': must be true or false"),
        ("[vm]\nallow_tcg = 1", "vm.allow_tcg = 1: must be true or false"),
        ("[runtime]\nstate_dir = 'run'", "runtime.state_dir = 'run': must be an absolute path"),
        ("[vm]\nqemu = './qemu'", "vm.qemu = './qemu': must be an absolute path, or a name to look for in PATH"),
        ("vm = 3", "vm = 3: must be a section, [vm]"),
        ("accel = 'tcg'", "unknown key accel = 'tcg' before the first section"),
        ("[vms]\nx = 1", "unknown section [vms]"),
        ("[vm.deep]\nx = 1", "unknown key vm.deep = {'x': 1}"),
        ("[vm", "not TOML: "),
        ("[vm]\naccel = 'tcg'\naccel = 'kvm'", "not TOML: "),
    ],
)
def test_what_is_not_allowed(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert caught.value.message.startswith(message)


@given(st.sampled_from(sorted(_SECTIONS)), st.from_regex(r"[a-z_]{1,12}", fullmatch=True), st.integers())
def test_an_unknown_key_is_named_with_its_value_and_what_there_is(section: str, key: str, value: int) -> None:
    if (section, key) in _KEYS:
        return
    with pytest.raises(ConfigError) as caught:
        parse(_file(section, key, value))
    assert caught.value.message == f"unknown key {section}.{key} = {value}"
    assert caught.value.hint == f"there are {', '.join(_SECTIONS[section]._fields)}"


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    message = ""
    try:
        parse(text)
    except ConfigError as error:
        message = str(error)
    assert "\n" not in message


def test_the_file_is_the_one_that_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[vm]\naccel = 'tcg'\r\n")
    assert load({"QEMUBOX_CONFIG": str(path)}).vm.accel == "tcg"


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load({"QEMUBOX_CONFIG": str(tmp_path / "gone")})
    assert str(caught.value) == f"{tmp_path}/gone: no such file (QEMUBOX_CONFIG names it)"


def test_the_default_file_need_not_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shim.config.DEFAULT_PATH", str(tmp_path / "gone"))
    assert load({}) == Config()
    assert load({"QEMUBOX_CONFIG": ""}) == Config()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"[vm]\naccel = 3", "vm.accel = 3"), (b"\xff", "not UTF-8"), (b"[", "not TOML")],
)
def test_an_error_names_the_file(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load({"QEMUBOX_CONFIG": str(path)})
    assert caught.value.message.startswith(f"{path}: {message}")


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load({"QEMUBOX_CONFIG": str(tmp_path)})
    assert caught.value.message == f"{tmp_path}: Is a directory"


def test_a_list_of_names() -> None:
    assert parse('[annotations]\nallow = ["vm.cpus", "vm.accel"]').annotations.allow == ("vm.cpus", "vm.accel")
    assert parse("[annotations]\nallow = []") == Config()


@pytest.mark.parametrize(
    "value", ['"vm.cpus"', "true", "[1]", '["vm.kernel"]', '["io.qemubox.vm.cpus"]', '[["vm.cpus"]]']
)
def test_a_list_of_other_things_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=r"annotations\.allow = .*must be a list of some of vm\.cpus, vm\.memory_mib"):
        parse(f"[annotations]\nallow = {value}")
