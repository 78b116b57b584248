"""-info is what containerd parses, and says what it needs."""

import json

from api import types_pb2
from shim import info
from shim.version import RUNTIME_NAME, VERSION


def test_info_is_a_runtime_info() -> None:
    message = types_pb2.RuntimeInfo.FromString(info.runtime_info())
    assert (message.name, message.version.version) == (RUNTIME_NAME, VERSION)
    assert dict(message.annotations) == {"containerd.io/runtime-allow-mounts": "mkdir/*,format/*,erofs"}
    assert message.features.type_url == "types.containerd.io/opencontainers/runtime-spec/1/features/Features"
    assert message.features.value.decode() == info.FEATURES


def test_the_features_are_an_oci_document() -> None:
    features = json.loads(info.FEATURES)
    assert set(features) == {"ociVersionMin", "ociVersionMax", "mountOptions", "linux"}
    assert "rro" in features["mountOptions"]  # TestRuntimeInfo of containerd wants it
    assert features["mountOptions"] == sorted(set(features["mountOptions"]))
    assert "user" in features["linux"]["namespaces"]
    # What is not there is not promised (shim/mounts/ refuses it).
    assert not {"shared", "rshared", "idmap", "ridmap"} & {*features["mountOptions"]}
    assert features["linux"]["mountExtensions"] == {"idmap": {"enabled": False}}
    assert features["linux"]["cgroup"]["v2"] is True
