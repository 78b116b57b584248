"""Our few lines of protobuf against the real thing."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from api import bootstrap_pb2, task_pb2, types_pb2
from shim import wire

_TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=300)

_LEVELS = [
    *(bootstrap_pb2.LOG_LEVEL_TRACE, bootstrap_pb2.LOG_LEVEL_DEBUG, bootstrap_pb2.LOG_LEVEL_INFO),
    *(bootstrap_pb2.LOG_LEVEL_WARN, bootstrap_pb2.LOG_LEVEL_ERROR, bootstrap_pb2.LOG_LEVEL_PANIC),
]


@st.composite
def _params(draw: st.DrawFn) -> bootstrap_pb2.BootstrapParams:
    params = bootstrap_pb2.BootstrapParams(
        instance_id=draw(_TEXT),
        namespace=draw(_TEXT),
        log_level=draw(st.sampled_from(_LEVELS)),
        containerd_version=draw(_TEXT),
        containerd_ttrpc_address=draw(_TEXT),
        containerd_grpc_address=draw(_TEXT),
        containerd_binary=draw(_TEXT),
        socket_dir=draw(st.one_of(st.none(), _TEXT)),
    )
    for value in draw(st.lists(st.binary(max_size=50), max_size=3)):
        params.extensions.add().value.value = value
    return params


@given(_params())
def test_bootstrap_parameters(params: bootstrap_pb2.BootstrapParams) -> None:
    data = params.SerializeToString()
    assert wire.bootstrap(data, params.instance_id, params.namespace) == (params.socket_dir, params.log_level)
    assert wire.bootstrap(data, params.instance_id + "x", params.namespace) is None
    assert wire.bootstrap(data, params.instance_id, params.namespace + "x") is None


@given(_params(), st.data())
def test_bootstrap_parameters_cut_anywhere(params: bootstrap_pb2.BootstrapParams, data: st.DataObject) -> None:
    whole = params.SerializeToString()
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    found = wire.bootstrap(cut, params.instance_id, params.namespace) or ("", 0)
    assert found[0] in ("", params.socket_dir)
    assert found[1] in (0, params.log_level)


@given(st.binary(max_size=200))
def test_any_bytes_are_other_options(data: bytes) -> None:
    assert wire.bootstrap(data, "an id", "a namespace") is None


def test_nothing_is_no_bootstrap() -> None:
    assert wire.bootstrap(b"", "id", "ns") is None


def test_a_field_of_another_wire_type_is_another_field() -> None:
    # Field 1 as a fixed64 whose bytes are the id's; protobuf takes it for an unknown field.
    data = b"\x09abcdefgh" + bootstrap_pb2.BootstrapParams(namespace="ns", socket_dir="/x").SerializeToString()
    assert bootstrap_pb2.BootstrapParams.FromString(data).instance_id == ""
    assert wire.bootstrap(data, "abcdefgh", "ns") is None


@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 253402300799 * 10**9 + 999_999_999),  # the years that a Timestamp may have
)
def test_delete_response(pid: int, exit_status: int, exited_at_ns: int) -> None:
    data = wire.delete_response(pid=pid, exit_status=exit_status, exited_at_ns=exited_at_ns)
    expected = task_pb2.DeleteResponse(pid=pid, exit_status=exit_status, exited_at=Timestamp())
    expected.exited_at.FromNanoseconds(exited_at_ns)
    assert task_pb2.DeleteResponse.FromString(data) == expected
    assert expected.SerializeToString(deterministic=True) == data


@given(_TEXT, _TEXT, _TEXT, st.binary(max_size=2000), st.dictionaries(_TEXT, _TEXT, max_size=3))
def test_runtime_info(name: str, version: str, url: str, value: bytes, annotations: dict[str, str]) -> None:
    data = wire.runtime_info(name=name, version=version, features=(url, value), annotations=annotations)
    info = types_pb2.RuntimeInfo.FromString(data)
    assert (info.name, info.version.version, info.features.type_url, info.features.value) == (name, version, url, value)
    assert dict(info.annotations) == annotations


@given(_params())
def test_fields_gives_every_field_once(params: bootstrap_pb2.BootstrapParams) -> None:
    data = params.SerializeToString()
    numbers = [number for number, _ in wire.fields(data)]
    expected = [field.number for field, value in params.ListFields() for _ in range(_count(value))]
    assert sorted(numbers) == sorted(expected)


def _count(value: object) -> int:
    return 1 if isinstance(value, str | int) else len(value) if hasattr(value, "__len__") else 1


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"\x08\x96\x01", 150),
        (b"\x08" + b"\xff" * 9 + b"\x01", 2**64 - 1),
        (b"\x0d\x01\x00\x00\x80", 0x80000001),
        (b"\x09\x02\x00\x00\x00\x00\x00\x00\x01", 2 | 1 << 56),
        (b"\x0a\x03abc", b"abc"),
    ],
)
def test_fields_reads_every_wire_type(data: bytes, value: int | bytes) -> None:
    assert list(wire.fields(data)) == [(1, value)]


@pytest.mark.parametrize(
    "data", [b"\x08", b"\x08\x80", b"\x0a\x05abcd", b"\x0d\x01", b"\x0b", b"\x00\x01", b"\x08" + b"\x80" * 10 + b"\x01"]
)
def test_bytes_that_do_not_add_up_are_refused(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        list(wire.fields(data))
