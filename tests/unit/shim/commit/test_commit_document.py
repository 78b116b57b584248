"""The new image's documents: what is added, what stays, what keeps it all."""

import hashlib
import json

import pytest

from shim.commit.document import (
    DOCKER_MANIFEST,
    OCI_MANIFEST,
    Layer,
    Told,
    chain_id,
    config_labels,
    encoded,
    layer_type,
    manifest_labels,
    new_config,
    new_manifest,
)

_LAYER = Layer("type", "sha256:blob", 5, "sha256:new")
_TOLD = Told("A <a@b>", "why", "sh -c x", "2026-11-29T00:00:00Z")


def test_chain_ids_are_those_of_the_specification() -> None:
    assert chain_id([]) == ""
    assert chain_id(["sha256:a"]) == "sha256:a"
    two = f"sha256:{hashlib.sha256(b'sha256:a sha256:b').hexdigest()}"
    assert chain_id(["sha256:a", "sha256:b"]) == two
    assert chain_id(["sha256:a", "sha256:b", "sha256:c"]) == (
        f"sha256:{hashlib.sha256(f'{two} sha256:c'.encode()).hexdigest()}"
    )


def test_a_configuration_gets_one_more_layer_and_a_line_of_history() -> None:
    base = {
        "architecture": "arm64",
        "os": "linux",
        "variant": "v8",
        "author": "B",
        "config": {"Env": ["A=1"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:old"]},
        "history": [{"created_by": "first"}],
    }
    made = new_config(base, {"Env": ["A=2"]}, _LAYER, _TOLD)
    assert made == {
        "architecture": "arm64",
        "os": "linux",
        "variant": "v8",
        "author": "A <a@b>",
        "created": _TOLD.created,
        "config": {"Env": ["A=2"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:old", "sha256:new"]},
        "history": [
            {"created_by": "first"},
            {"created": _TOLD.created, "created_by": "sh -c x", "author": "A <a@b>", "comment": "why"},
        ],
    }
    assert base["rootfs"] == {"type": "layers", "diff_ids": ["sha256:old"]}


def test_an_author_stays_where_none_is_given() -> None:
    assert new_config({"author": "B"}, {}, _LAYER, Told("", "", "", "now"))["author"] == "B"


@pytest.mark.parametrize("kind", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_a_manifest_is_of_its_base_s_family(kind: str) -> None:
    base = {"layers": [{"digest": "sha256:one"}], "annotations": {"a": "b"}}
    made = new_manifest(base, kind, b"{}", _LAYER)
    family = "oci" if kind == OCI_MANIFEST else "docker"
    config = made["config"]
    assert isinstance(config, dict)
    assert made["mediaType"] == kind
    assert f".{family}." in str(config["mediaType"])
    assert config["digest"] == f"sha256:{hashlib.sha256(b'{}').hexdigest()}"
    assert made["layers"] == [{"digest": "sha256:one"}, {"mediaType": "type", "digest": "sha256:blob", "size": 5}]
    assert "annotations" not in made
    for compressed in (True, False):
        assert f".{family}." in layer_type(kind, compressed=compressed)
        assert layer_type(kind, compressed=compressed).endswith("gzip") == compressed


def test_labels_keep_every_blob_and_the_snapshot() -> None:
    assert manifest_labels("c", ["l0", "l1"]) == {
        "containerd.io/gc.ref.content.0": "c",
        "containerd.io/gc.ref.content.1": "l0",
        "containerd.io/gc.ref.content.2": "l1",
    }
    assert config_labels("erofs", "chain") == {"containerd.io/gc.ref.snapshot.erofs": "chain"}


def test_documents_are_utf_8() -> None:
    assert json.loads(encoded({"author": "Ä"}).decode()) == {"author": "Ä"}
