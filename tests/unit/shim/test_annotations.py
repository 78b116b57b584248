"""Annotations of a container: which there are, who allows them, and how far they go."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.annotations import PREFIX, RULES, effective, read
from shim.config import ANNOTATIONS, Config, parse
from shim.errors import SpecError
from shim.sizing import Bounds
from shim.spec import Json

_DOCS = Path(__file__).parents[3] / "docs" / "annotations.md"
_BOUNDS = Bounds(default_cpus=1, default_memory_mib=512, max_cpus=4, max_memory_mib=2048)
_ALL = parse(f"[annotations]\nallow = {json.dumps(ANNOTATIONS)}")


def _effective(config: Config, **asked: object) -> Config:
    named = {PREFIX + name.replace("__", "."): value for name, value in asked.items()}
    return effective(config, named, _BOUNDS)


def _text(text: str) -> Config:
    return parse(f"{text}\n[annotations]\nallow = {json.dumps(ANNOTATIONS)}")


def test_what_is_asked_for_is_in_the_configuration() -> None:
    config = _effective(
        _ALL,
        vm__cpus="4",
        vm__memory_mib="2048",
        vm__accel="tcg",
        vm__console_kib="16",
        rootfs__writable_mib="100",
        network__name="other.net",
        template__mode="off",
    )
    vm = _ALL.vm._replace(default_cpus=4, default_memory_mib=2048, accel="tcg", console_kib=16)
    assert config == _ALL._replace(
        vm=vm,
        rootfs=_ALL.rootfs._replace(writable_mib=100),
        network=_ALL.network._replace(name="other.net"),
        template=_ALL.template._replace(mode="off"),
    )


def test_nothing_asked_for_changes_nothing() -> None:
    assert effective(_ALL, {}, _BOUNDS) is _ALL


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_none_is_allowed_unless_the_owner_says_so(name: str) -> None:
    others = [each for each in ANNOTATIONS if each != name]
    for allowed in ([], others):
        config = parse(f"[annotations]\nallow = {json.dumps(allowed)}")
        with pytest.raises(SpecError) as caught:
            effective(config, {PREFIX + name: "1"}, _BOUNDS)
        said = str(caught.value)
        assert f"{PREFIX}{name} = '1' is not allowed: annotations.allow has {', '.join(allowed) or 'none'}" in said
        assert f'add "{name}" to annotations.allow' in said


def test_one_that_there_is_not_is_named_with_those_that_there_are() -> None:
    with pytest.raises(SpecError) as caught:
        _effective(_ALL, vm__kernel="/etc/shadow")
    assert "unknown annotation io.qemubox.vm.kernel = '/etc/shadow'" in str(caught.value)
    assert all(PREFIX + name in str(caught.value) for name in ANNOTATIONS)


@pytest.mark.parametrize(
    ("text", "name", "value", "said"),
    [
        ("", "vm.cpus", "5", "a whole number from 1 to 4, what vm.max_cpus or the host gives"),
        ("", "vm.cpus", "0", "a whole number from 1 to 4"),
        ("", "vm.cpus", "", "a whole number from 1 to 4"),
        ("", "vm.cpus", "-1", "a whole number from 1 to 4"),
        ("", "vm.cpus", " 1", "a whole number from 1 to 4"),
        ("", "vm.cpus", "1.0", "a whole number from 1 to 4"),
        ("", "vm.cpus", "٣", "a whole number from 1 to 4"),
        ("", "vm.cpus", 2, "a whole number from 1 to 4"),
        ("", "vm.cpus", "0" * 11 + "1", "a whole number from 1 to 4"),
        ("", "vm.memory_mib", "2049", "a whole number from 64 to 2048, what vm.max_memory_mib or the host gives"),
        ("", "vm.memory_mib", "63", "a whole number from 64 to 2048"),
        ("[vm]\nconsole_kib = 32", "vm.console_kib", "33", "from 16 to 32, which is vm.console_kib"),
        ("[rootfs]\nwritable_mib = 64", "rootfs.writable_mib", "65", "from 16 to 64, which is rootfs.writable_mib"),
        ("[vm]\nallow_tcg = false", "vm.accel", "tcg", "must be one of auto, kvm: vm.accel and vm.allow_tcg say so"),
        ('[vm]\naccel = "kvm"', "vm.accel", "tcg", "must be one of kvm:"),
        ('[vm]\naccel = "kvm"', "vm.accel", "auto", "must be one of kvm:"),
        ('[vm]\naccel = "tcg"', "vm.accel", "kvm", "must be one of tcg:"),
        ("", "vm.accel", "hvf", "must be one of auto, kvm, tcg:"),
        ('[template]\nmode = "per-namespace"', "template.mode", "auto", "must be one of per-namespace, off:"),
        ('[template]\nmode = "off"', "template.mode", "auto", "must be one of off:"),
        ("", "network.name", "../../etc/cni/net.d/x", "must be the name of a network of network.conf_dir"),
        ("", "network.name", "", "must be the name of a network of network.conf_dir"),
        ("", "template.mode", None, "must be one of auto, per-namespace, off:"),
    ],
)
def test_beyond_what_the_owner_gives(text: str, name: str, value: object, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        effective(_text(text), {PREFIX + name: value}, _BOUNDS)
    assert f"the annotation {PREFIX}{name} = {value!r} must be " in str(caught.value)
    assert said in str(caught.value)


@given(st.dictionaries(st.sampled_from([PREFIX + name for name in ANNOTATIONS]), st.text(max_size=12)))
def test_whatever_is_asked_for_stays_within_the_owner_s(asked: dict[str, str]) -> None:
    owner = _text('[vm]\nallow_tcg = false\n[template]\nmode = "per-namespace"')
    try:
        found = effective(owner, asked, _BOUNDS)
    except SpecError:
        return
    assert found.vm.default_cpus <= _BOUNDS.max_cpus
    assert found.vm.default_memory_mib <= _BOUNDS.max_memory_mib
    assert found.vm.accel != "tcg"
    assert found.vm.console_kib <= owner.vm.console_kib
    assert found.rootfs.writable_mib <= owner.rootfs.writable_mib
    assert found.template.mode != "auto"
    # All else is as it was: no path, no program, no user.
    assert found.runtime == owner.runtime
    assert found.vsock == owner.vsock
    assert found.annotations == owner.annotations
    assert (found.vm.qemu, found.vm.kernel, found.vm.image, found.vm.kernel_args) == (
        *(owner.vm.qemu, owner.vm.kernel, owner.vm.image, owner.vm.kernel_args),
    )


def test_the_allow_list_knows_what_there_is() -> None:
    assert set(ANNOTATIONS) == RULES.keys()


def test_each_is_documented_with_the_key_that_it_changes() -> None:
    rows = re.findall(r"^\| `io\.qemubox\.([\w.]+)` \| `([\w.]+)` \|", _DOCS.read_text(), re.MULTILINE)
    values = {"vm.accel": "tcg", "template.mode": "off", "vm.cpus": "4", "vm.memory_mib": "64"}
    changed = [(name, _changed(effective(_ALL, {PREFIX + name: values.get(name, "16")}, _BOUNDS))) for name in RULES]
    assert sorted(rows) == sorted(changed)


def _changed(config: Config) -> str:
    """The one key that is not as in _ALL."""
    (key,) = [
        f"{section}.{key}"
        for section, table in config._asdict().items()
        for key, value in table._asdict().items()
        if value != getattr(getattr(_ALL, section), key)
    ]
    return key


def _bundle(path: Path, found: object) -> Path:
    text = found if isinstance(found, str) else json.dumps({"ociVersion": "1.0.2", "annotations": found})
    (path / "config.json").write_text(text)
    return path


def test_they_are_read_from_the_bundle(tmp_path: Path) -> None:
    document: Json = {"annotations": {PREFIX + "vm.cpus": "1", "other": "x"}}
    wishes = read(_ALL, _bundle(tmp_path, document["annotations"]))
    assert wishes.config.vm.default_cpus == 1
    assert not wishes.refused
    wishes.check(document)


@pytest.mark.parametrize("text", ["", "[]", "{", "{}", '{"annotations": 3, "x": "io.qemubox."}', '"io.qemubox."'])
def test_what_cannot_be_read_is_not_told_yet(tmp_path: Path, text: str) -> None:
    wishes = read(_ALL, _bundle(tmp_path, text))
    assert wishes == (_ALL, False, _ALL)


def test_without_a_specification_the_configuration_holds(tmp_path: Path) -> None:
    assert read(_ALL, tmp_path) == (_ALL, False, _ALL)


def test_what_is_refused_is_told_when_asked(tmp_path: Path) -> None:
    asked: Json = {PREFIX + "vm.cpus": "0"}
    wishes = read(_ALL, _bundle(tmp_path, asked))
    assert wishes == (_ALL, True, _ALL)
    for _ in range(2):
        with pytest.raises(SpecError, match=r"vm\.cpus = '0' must be"):
            wishes.check({"annotations": asked})


def test_other_annotations_than_at_first_are_refused(tmp_path: Path) -> None:
    """The machine was made for those; also where JSON hid them from the first look."""
    hidden = r'{"annotations": {"\u0069o.qemubox.vm.cpus": "2"}}'
    wishes = read(_ALL, _bundle(tmp_path, hidden))
    with pytest.raises(SpecError, match="not those that were there when the shim started"):
        wishes.check(json.loads(hidden))


def test_a_large_specification_is_read_quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One without annotations of ours is not even parsed."""
    monkeypatch.setattr("json.loads", lambda _data: pytest.fail("parsed"))
    assert read(_ALL, _bundle(tmp_path, {"other": "x" * 20_000})).config is _ALL
