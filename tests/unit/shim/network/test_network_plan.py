"""Where a container's network comes from."""

import pytest

from shim.errors import SpecError
from shim.network.plan import Plan, Way, plan
from shim.spec import Json, JsonValue


def _document(*namespaces: JsonValue) -> Json:
    return {"linux": {"namespaces": [{"type": "pid"}, *namespaces]}}


def _plan(document: Json, *, hooked: bool = False, namespace: str = "default", network: str = "qemubox") -> Plan:
    return plan(document, hooked=hooked, namespace=namespace, network=network)


def test_a_namespace_that_somebody_made_is_joined_whatever_else_there_is() -> None:
    document = _document({"type": "network", "path": "/run/netns/cni-1"})
    for hooked in (False, True):
        for namespace in ("k8s.io", "moby"):
            assert _plan(document, hooked=hooked, namespace=namespace) == Plan(Way.GIVEN, path="/run/netns/cni-1")


def test_hooks_make_it_otherwise_and_the_configuration_s_comes_last() -> None:
    document = _document({"type": "network"})
    for network in ("qemubox", "none"):
        assert _plan(document, hooked=True, network=network) == Plan(Way.HOOKS)
    assert _plan(document) == Plan(Way.CONFIGURED, name="qemubox")
    assert _plan(document, network="none") == Plan(Way.NONE)


def test_docker_connects_its_containers_itself() -> None:
    document = _document({"type": "network"})
    assert _plan(document, namespace="moby") == Plan(Way.NONE)
    assert _plan(document, hooked=True, namespace="moby") == Plan(Way.HOOKS)


@pytest.mark.parametrize("path", ["run/netns/x", 7, ["/run/netns/x"], "/run/netns/\0"])
def test_what_is_no_path_is_refused_with_it(path: JsonValue) -> None:
    with pytest.raises(SpecError, match="is no absolute path"):
        _plan(_document({"type": "network", "path": path}))
