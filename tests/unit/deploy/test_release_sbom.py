"""A release's list of parts: what the build's records say, in SPDX 2.3, the same bytes each time."""

import json
import re
from pathlib import Path

import pytest

from deploy.release import sbom

HASH = "ab" * 32
GO = """\
containerd: go1.26.8
\tpath\tgithub.com/containerd/containerd/v2/cmd/containerd
\tmod\tgithub.com/containerd/containerd/v2\tv2.3.4\th1:AAAA=
\tdep\tdario.cat/mergo\tv1.0.2\th1:BBBB=
\tdep\texample.org/forked\tv1.0.0
\t=>\texample.org/fork\tv1.0.1\th1:CCCC=
\tbuild\tCGO_ENABLED=0
ctr: go1.26.8
\tmod\tgithub.com/containerd/containerd/v2\tv2.3.4\th1:AAAA=
\tdep\tdario.cat/mergo\tv1.0.2\th1:BBBB=
"""


def test_a_debian_package_has_version_hash_and_purl() -> None:
    (part,) = sbom.debian(f"qemu-system-x86 1:10.0.13+ds-0+deb13u1 {HASH}\n", "trixie", "lib/qemubox/runtime")
    assert (part.name, part.version, part.sha256) == ("qemu-system-x86", "1:10.0.13+ds-0+deb13u1", HASH)
    assert part.purl == "pkg:deb/debian/qemu-system-x86@1%3A10.0.13+ds-0+deb13u1?distro=trixie"


def test_a_package_whose_hash_nobody_has_kept_has_none() -> None:
    (part,) = sbom.debian("linux-source-6.12 6.12.9-1 -\n", "bookworm", "share/qemubox/vmlinux")
    assert part.sha256 == ""


def test_a_wheel_among_packages_is_one_of_pypi() -> None:
    (part,) = sbom.debian(f"protobuf-7.35.0-cp310-abi3-manylinux2014_x86_64.whl {HASH}\n", "trixie", "guest")
    assert (part.purl, part.sha256) == ("pkg:pypi/protobuf@7.35.0", HASH)


def test_a_wheels_name_is_spelt_as_locks_spell_it() -> None:
    (part,) = sbom.wheels(f"{HASH}  /somewhere/qemu_qmp-0.0.6-py3-none-any.whl\n", "site-packages")
    assert (part.name, part.version) == ("qemu-qmp", "0.0.6")


def test_go_modules_stand_once_and_replacements_for_what_they_replace() -> None:
    told = {part.purl: part.note for part in sbom.go(GO, "bin")}
    assert told == {
        "pkg:golang/stdlib@1.26.8": "",
        "pkg:golang/github.com/containerd/containerd/v2@v2.3.4": "go.sum h1:AAAA=",
        "pkg:golang/dario.cat/mergo@v1.0.2": "go.sum h1:BBBB=",
        "pkg:golang/example.org/fork@v1.0.1": "go.sum h1:CCCC=",
    }


@pytest.mark.parametrize("lines", ["", "containerd: go1.26.8\n", "containerd: not a Go executable\n"])
def test_a_program_without_modules_is_refused(lines: str) -> None:
    with pytest.raises(ValueError, match="names no"):
        list(sbom.go(lines, "bin"))


@pytest.mark.parametrize("line", ["one", "one two", "one two three four"])
def test_another_line_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(line))):
        list(sbom.debian(f"{line}\n", "trixie", "here"))


def test_what_is_no_wheel_is_refused() -> None:
    with pytest.raises(ValueError, match="no wheel"):
        list(sbom.wheels(f"{HASH}  protobuf-7.35.0.tar.gz\n", "here"))


def test_an_unknown_kind_of_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lines").touch()
    with pytest.raises(ValueError, match="there are debian:SUITE:WHERE"):
        list(sbom.parts_of(f"rpm:here={tmp_path}/lines"))


def test_the_document_does_not_depend_on_the_order_of_its_parts() -> None:
    parts = [*sbom.go(GO, "bin"), *sbom.wheels(f"{HASH}  a-1-py3-none-any.whl\n", "site-packages")]
    text = sbom.document("0.1.0", 1700000000, parts)
    assert sbom.document("0.1.0", 1700000000, [*reversed(parts), parts[0]]) == text
    assert sbom.document("0.1.1", 1700000000, parts) != text


def test_the_document_is_spdx() -> None:
    """The fields that SPDX 2.3 demands of a document and of a package, and its grammar of identifiers."""
    document = json.loads(sbom.document("0.1.0", 1700000000, [*sbom.go(GO, "bin"), *sbom.go(GO, "lib/cni")]))
    assert document["spdxVersion"] == "SPDX-2.3"
    assert document["dataLicense"] == "CC0-1.0"
    assert document["creationInfo"]["created"] == "2023-11-14T22:13:20Z"
    assert re.fullmatch(r"urn:qemubox:0\.1\.0:[0-9a-f]{64}", document["documentNamespace"])
    identifiers = [package["SPDXID"] for package in document["packages"]]
    assert len(set(identifiers)) == len(identifiers) == 9
    for package in document["packages"]:
        assert re.fullmatch(r"SPDXRef-[A-Za-z0-9.-]+", package["SPDXID"])
        assert package.keys() >= {"name", "versionInfo", "downloadLocation"}
    relations = {(r["relationshipType"], r["relatedSpdxElement"]) for r in document["relationships"]}
    assert relations == {("DESCRIBES", identifiers[0]), *(("CONTAINS", other) for other in identifiers[1:])}
