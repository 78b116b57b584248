"""What the guest gets of a specification: no more than was asked for, and nothing dropped silently."""

import copy
import json
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import QemuboxError, SpecError, UnsupportedError
from shim.spec import Json, JsonValue, for_guest, load

# What `ctr run` of containerd 2.3 writes for an ordinary image, in short.
_SPEC: Json = {
    "ociVersion": "1.2.1",
    "hostname": "c1",
    "root": {"path": "rootfs", "readonly": True},
    "process": {
        "terminal": False,
        "user": {"uid": 1000, "gid": 1000, "additionalGids": [10], "umask": 18},
        "args": ["/bin/true"],
        "env": ["PATH=/bin"],
        "cwd": "/",
        "capabilities": {"bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "noNewPrivileges": True,
        "oomScoreAdj": 100,
        "apparmorProfile": "cri-containerd.apparmor.d",
        "selinuxLabel": "x",
    },
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
    ],
    "linux": {
        "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network", "cgroup")],
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "cgroupsPath": "/default/c1",
        "resources": {"devices": [{"allow": False, "access": "rwm"}], "memory": {"limit": 268435456}},
        "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": []},
        "sysctl": {"net.ipv4.ip_forward": "1"},
    },
    "annotations": {"run.oci.hooks.stderr": "/etc/shadow", "a": "b"},
}

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_SYSCALLS = st.lists(
    st.fixed_dictionaries(
        {"names": st.lists(st.sampled_from(["read", "ptrace", "bpf"])), "action": st.sampled_from(["SCMP_ACT_ALLOW"])}
    ),
    max_size=3,
)
_CAPABILITIES = st.lists(st.sampled_from(["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_NET_RAW"]), unique=True)


def _with(changes: Json, *, spec: Json = _SPEC) -> Json:
    """The specification with some values changed: keys are dotted paths."""
    changed = copy.deepcopy(spec)
    for path, value in changes.items():
        *sections, key = path.split(".")
        holder = changed
        for name in sections:
            holder = cast("Json", holder[name])
        holder[key] = value
    return changed


def _guest(spec: Json, *, terminal: bool = False) -> Json:
    document: Json = json.loads(for_guest(spec, terminal=terminal).json)
    return document


def test_an_ordinary_specification() -> None:
    expected = _with({})
    for holder, key in (("process", "apparmorProfile"), ("process", "selinuxLabel"), ("linux", "cgroupsPath")):
        cast("Json", expected[holder]).pop(key)
    expected.pop("annotations")
    cast("Json", expected["linux"])["devices"] = []
    cast("Json", expected["linux"])["namespaces"] = [
        {"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup")
    ]
    assert _guest(_SPEC) == expected


def test_the_specification_that_was_given_is_not_changed() -> None:
    before = copy.deepcopy(_SPEC)
    for_guest(_SPEC, terminal=False)
    assert before == _SPEC


@given(
    capabilities=st.dictionaries(
        st.sampled_from(["bounding", "effective", "permitted", "inheritable", "ambient"]), _CAPABILITIES
    ),
    seccomp=st.fixed_dictionaries({"defaultAction": st.sampled_from(["SCMP_ACT_ERRNO"]), "syscalls": _SYSCALLS}),
    masked=st.lists(st.text(max_size=8)),
    read_only=st.lists(st.text(max_size=8)),
    no_new=st.booleans(),
    root_read_only=st.booleans(),
    rlimits=st.lists(st.fixed_dictionaries({"type": st.just("RLIMIT_CORE"), "hard": st.integers(0, 9)}), max_size=2),
    user=st.fixed_dictionaries({"uid": st.integers(0, 2**32 - 2), "gid": st.integers(0, 2**32 - 2)}),
    extra=st.dictionaries(st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=20), _JSON, max_size=2),
)
def test_what_confines_the_container_comes_out_unchanged(
    capabilities: Json,
    seccomp: Json,
    masked: list[JsonValue],
    read_only: list[JsonValue],
    no_new: bool,
    root_read_only: bool,
    rlimits: list[JsonValue],
    user: Json,
    extra: Json,
) -> None:
    changes: Json = {
        "process.capabilities": capabilities,
        "process.noNewPrivileges": no_new,
        "process.rlimits": rlimits,
        "process.user": user,
        "linux.seccomp": seccomp,
        "linux.maskedPaths": masked,
        "linux.readonlyPaths": read_only,
        "root.readonly": root_read_only,
        **{f"linux.{name}": value for name, value in extra.items()},
    }
    guest = _guest(_with(changes))
    for path, value in changes.items():
        section, key = path.split(".")
        assert cast("Json", guest[section])[key] == value
    # And nothing else was added anywhere.
    assert _keys(guest) <= _keys(_with({**changes, "linux.devices": []}))


def _keys(value: JsonValue, at: str = "") -> set[str]:
    if isinstance(value, dict):
        return {f"{at}.{key}" for key in value}.union(*(_keys(item, f"{at}.{key}") for key, item in value.items()))
    if isinstance(value, list):
        return set().union(*(_keys(item, f"{at}[]") for item in value))
    return set()


@given(
    st.dictionaries(
        st.sampled_from(["process", "linux", "mounts", "hooks", "root", "annotations", "hostname"]), _JSON, max_size=5
    ),
    st.dictionaries(
        st.sampled_from(["namespaces", "devices", "resources", "seccomp", "uidMappings", "intelRdt", "netDevices"]),
        _JSON | st.lists(st.dictionaries(st.sampled_from(["type", "path", "major", "minor"]), _JSON), max_size=3),
        max_size=5,
    ),
    st.lists(
        st.dictionaries(st.sampled_from(["type", "source", "destination", "options"]), _JSON, max_size=4), max_size=3
    ),
)
def test_any_json_is_a_specification_or_an_error_of_ours(top: Json, linux: Json, mounts: list[JsonValue]) -> None:
    for spec in (
        top,
        _with(cast("Json", {f"linux.{key}": value for key, value in linux.items()})),
        _with({"mounts": mounts}),
    ):
        message = "."
        try:
            for_guest(spec, terminal=False)
        except QemuboxError as error:
            message = error.message
        assert message


@pytest.mark.parametrize("kind", ["mount", "network", "pid", "ipc"])
def test_a_namespace_of_the_host_is_refused(kind: str) -> None:
    kinds: list[JsonValue] = [{"type": other} for other in ("pid", "ipc", "uts", "mount", "network") if other != kind]
    with pytest.raises(SpecError, match=f"no {kind} namespace"):
        for_guest(_with({"linux.namespaces": kinds}), terminal=False)


def test_no_linux_section_is_all_of_the_hosts_namespaces() -> None:
    spec = _with({})
    del spec["linux"]
    with pytest.raises(SpecError, match="a virtual machine cannot give"):
        for_guest(spec, terminal=False)


@pytest.mark.parametrize("kind", ["mount", "pid", "ipc", "uts", "cgroup"])
def test_joining_a_namespace_of_the_host_is_refused(kind: str) -> None:
    namespaces = [
        item for item in cast("list[Json]", cast("Json", _SPEC["linux"])["namespaces"]) if item["type"] != kind
    ]
    joined: list[JsonValue] = [*namespaces, {"type": kind, "path": "/proc/1/ns/x"}]
    with pytest.raises(SpecError, match=f"join the {kind} namespace /proc/1/ns/x"):
        for_guest(_with({"linux.namespaces": joined}), terminal=False)


def test_the_machine_is_the_network_namespace() -> None:
    namespaces = cast("list[JsonValue]", cast("Json", _guest(_SPEC)["linux"])["namespaces"])
    assert {"type": "network"} not in namespaces
    assert {"type": "pid"} in namespaces


def test_a_network_that_was_made_for_the_container_is_nothing_to_crun() -> None:
    namespaces = [
        item for item in cast("list[Json]", cast("Json", _SPEC["linux"])["namespaces"]) if item["type"] != "network"
    ]
    spec = _with({"linux.namespaces": [*namespaces, {"type": "network", "path": "/run/netns/x"}]})
    kept = cast("list[Json]", cast("Json", _guest(spec)["linux"])["namespaces"])
    assert "network" not in [item["type"] for item in kept]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"linux.intelRdt": {"closID": "x"}}, "linux.intelRdt"),
        ({"linux.rootfsPropagation": "rshared"}, "linux.rootfsPropagation rshared"),
        ({"linux.seccomp.listenerPath": "/run/x"}, "linux.seccomp.listenerPath"),
        ({"linux.netDevices": {"eth0": {}}}, "linux.netDevices"),
    ],
)
def test_what_is_not_there_is_refused_by_name(changes: Json, name: str) -> None:
    with pytest.raises(UnsupportedError, match=f"the specification has {name}: "):
        for_guest(_with(changes), terminal=False)


def test_lists_of_no_hooks_are_no_hooks() -> None:
    assert "hooks" not in _guest(_with({"hooks": {"prestart": [], "poststop": None, "startContainer": []}}))


def test_of_the_hooks_only_those_in_the_container_go_there() -> None:
    inside: Json = {"path": "/bin/x", "args": ["x"]}
    hooks: Json = {"createRuntime": [{"path": "/bin/y"}], "startContainer": [inside], "poststop": [{"path": "/bin/z"}]}
    assert _guest(_with({"hooks": hooks}))["hooks"] == {"startContainer": [inside]}


def test_devices_that_the_guest_has_too_are_kept() -> None:
    devices: list[JsonValue] = [
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 438},
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229},
    ]
    assert cast("Json", _guest(_with({"linux.devices": devices}))["linux"])["devices"] == devices


@pytest.mark.parametrize(
    "device",
    [
        {"path": "/dev/sda", "type": "b", "major": 8, "minor": 0},
        {"path": "/dev/kvm", "type": "c", "major": 10, "minor": 232},
        {"path": "/dev/null", "type": "b", "major": 1, "minor": 3},
        {"path": "/dev/x", "type": "c", "major": [1], "minor": {}},
        {"path": "/dev/x"},
    ],
)
def test_a_device_of_the_host_is_refused(device: Json) -> None:
    with pytest.raises(SpecError, match=f"asks for the device {device['path']}"):
        for_guest(_with({"linux.devices": [device]}), terminal=False)


def test_resources_lose_what_names_the_hosts_parts_and_nothing_else() -> None:
    resources: Json = {
        "devices": [{"allow": False}],
        "memory": {"limit": 5, "swap": 5},
        "pids": {"limit": 7},
        "cpu": {"quota": 1, "period": 2, "shares": 3, "cpus": "0-3", "mems": "0"},
        "blockIO": {"weight": 10, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}]},
        "network": {"classID": 1},
        "rdma": {},
        "hugepageLimits": [],
        "unified": {"memory.high": "5"},
    }
    assert cast("Json", _guest(_with({"linux.resources": resources}))["linux"])["resources"] == {
        "devices": [{"allow": False}],
        "memory": {"limit": 5, "swap": 5},
        "pids": {"limit": 7},
        "cpu": {"quota": 1, "period": 2, "shares": 3, "cpus": "0", "mems": "0"},
        "blockIO": {"weight": 10},
        "unified": {"memory.high": "5"},
    }
    guest = json.loads(for_guest(_with({"linux.resources": {"cpu": {"cpus": "4-7"}}}), terminal=False, vcpus=3).json)
    assert guest["linux"]["resources"] == {"cpu": {"cpus": "0-2"}}


@pytest.mark.parametrize(("asked", "created"), [(True, False), (False, True)])
def test_task_and_specification_agree_on_the_terminal(asked: bool, created: bool) -> None:
    with pytest.raises(SpecError, match=r"process\.terminal"):
        for_guest(_with({"process.terminal": asked}), terminal=created)
    assert for_guest(_with({"process.terminal": asked}), terminal=asked)


def test_load(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a": 1}')
    assert load(tmp_path) == {"a": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"{", "not JSON"), (b"\xff\xfe{", "not JSON"), (b"[]", "not a JSON object")],
)
def test_load_of_what_is_no_specification(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(SpecError) as caught:
        load(tmp_path)
    assert caught.value.message.startswith(f"{tmp_path}/config.json: {message}")
