"""Where a container's network comes from."""

import pytest

from shim.errors import SpecError
from shim.network.plan import Plan, Way, plan
from shim.spec import Json, JsonValue


def _document(*namespaces: JsonValue) -> Json:
    return {"linux": {"namespaces": [{"type": "pid"}, *namespaces]}}


def test_a_namespace_that_somebody_made_is_joined_whatever_else_there_is() -> None:
    document = _document({"type": "network", "path": "/run/netns/cni-1"})
    for hooked in (False, True):
        assert plan(document, hooked=hooked, network="qemubox") == Plan(Way.GIVEN, path="/run/netns/cni-1")


def test_hooks_make_it_otherwise_and_the_configuration_s_comes_last() -> None:
    document = _document({"type": "network"})
    assert plan(document, hooked=True, network="qemubox") == Plan(Way.HOOKS)
    assert plan(document, hooked=False, network="qemubox") == Plan(Way.CONFIGURED, name="qemubox")
    assert plan(document, hooked=True, network="none") == Plan(Way.HOOKS)
    assert plan(document, hooked=False, network="none") == Plan(Way.NONE)


@pytest.mark.parametrize("path", ["run/netns/x", 7, ["/run/netns/x"], "/run/netns/\0"])
def test_what_is_no_path_is_refused_with_it(path: JsonValue) -> None:
    with pytest.raises(SpecError, match="is no absolute path"):
        plan(_document({"type": "network", "path": path}), hooked=False, network="none")
