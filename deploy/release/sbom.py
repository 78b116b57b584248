"""Writes what a release is made of: SPDX 2.3, JSON. Run by the release's own Python.

    usage: sbom.py VERSION EPOCH OUT SOURCE...

VERSION  the release's
EPOCH    seconds since 1970: when it was made, which is its commit's time
OUT      the file
SOURCE   KIND=FILE: lines that the build has kept of what it fetched
    debian:SUITE:WHERE   "PACKAGE VERSION SHA256" (deploy/suite.sh), "-" for a hash that nobody has kept; a line
                         "WHEEL SHA256" is a wheel (initrd/base.sh)
    wheels:WHERE         sha256sum's lines of wheels
    go:WHERE             what `go version -m` prints (deploy/parts.sh)
WHERE says which part of the release has it.

The same input gives the same bytes: no random identifiers, no clock, everything in order. The document's name space is
the hash of what it says. Licences are not judged here: those of Debian's packages lie in the release itself, below
lib/qemubox/runtime/share/doc.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_NONE = "NOASSERTION"


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """One thing that somebody else has made: `where` in the release, `purl` as its kind of packages names it.

    `sha256` in hex is of the package as it was fetched, empty where there is none; `note` says more.
    """

    where: str
    name: str
    version: str
    purl: str
    sha256: str = ""
    note: str = ""

    @property
    def identifier(self) -> str:
        """SPDX allows letters, digits, `.` and `-`; the same text with other marks in it must be another identifier."""
        told = f"{self.where}|{self.purl}"
        readable = re.sub(r"[^A-Za-z0-9.]+", "-", f"{self.where}-{self.name}-{self.version}")
        return f"SPDXRef-{readable}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"


def debian(lines: str, suite: str, where: str) -> Iterator[Part]:
    """Parts from a manifest of packages, and wheels. Raises ValueError for another line."""
    for line in lines.splitlines():
        words = line.split()
        match words:
            case [name, version, sha256]:
                purl = f"pkg:deb/debian/{name}@{version.replace(':', '%3A')}?distro={suite}"
                yield Part(where, name, version, purl, sha256.strip("-"))
            case [wheel, sha256] if wheel.endswith(".whl"):
                yield from wheels(f"{sha256}  {wheel}\n", where)
            case _:
                raise ValueError(f"neither a package nor a wheel: {line!r}")


def wheels(lines: str, where: str) -> Iterator[Part]:
    """Parts from sha256sum's lines; a wheel's name says project and version (PEP 427). Raises ValueError for others."""
    for line in lines.splitlines():
        sha256, _, path = line.partition("  ")
        file = path.rpartition("/")[2]
        if not file.endswith(".whl") or file.count("-") < 4:
            raise ValueError(f"no wheel: {line!r}")
        project, version = file.split("-")[:2]
        name = project.replace("_", "-").lower()
        yield Part(where, name, version, f"pkg:pypi/{name}@{version}", sha256)


def go(lines: str, where: str) -> Iterator[Part]:
    """Parts from `go version -m`: the modules that programs are made of, and Go's own library. Each once.

    A line "=> MODULE VERSION SUM" replaces the one before it. Raises ValueError where a program names no modules.
    """
    found: dict[str, Part] = {}
    last = ""
    for line in lines.splitlines():
        words = line.split("\t")
        if not line.startswith("\t"):
            program, _, toolchain = line.rpartition(": go")
            version = toolchain.split()[0] if program else ""
            if not version:
                raise ValueError(f"`go version -m` names no toolchain: {line!r}")
            found[f"stdlib {version}"] = Part(where, "stdlib", version, f"pkg:golang/stdlib@{version}")
        elif words[1] in ("mod", "dep", "=>"):
            if words[1] == "=>":
                found.pop(last, None)
            name, version, *sums = words[2:]
            last = f"{name} {version}"
            note = f"go.sum {sums[0]}" if sums and sums[0] else ""
            found[last] = Part(where, name, version, f"pkg:golang/{name}@{version}", note=note)
    if not any(part.name != "stdlib" for part in found.values()):
        raise ValueError(f"{where}: `go version -m` names no modules")
    yield from found.values()


def parts_of(source: str) -> Iterator[Part]:
    """The parts of a SOURCE argument. Raises ValueError for a kind that there is not."""
    kind, _, file = source.partition("=")
    lines = Path(file).read_text()
    match kind.split(":"):
        case ["debian", suite, where]:
            yield from debian(lines, suite, where)
        case ["wheels", where]:
            yield from wheels(lines, where)
        case ["go", where]:
            yield from go(lines, where)
        case _:
            raise ValueError(f"{source}: there are debian:SUITE:WHERE, wheels:WHERE and go:WHERE")


def document(version: str, epoch: int, parts: list[Part]) -> str:
    """The document's text. `parts` in any order; one that comes twice stands once."""
    ours = {
        "SPDXID": "SPDXRef-qemubox",
        "name": "qemubox",
        "versionInfo": version,
        "downloadLocation": _NONE,
        "filesAnalyzed": False,
        "licenseConcluded": "Apache-2.0",
        "licenseDeclared": "Apache-2.0",
        "copyrightText": _NONE,
    }
    in_order = sorted(set(parts))
    packages = [ours, *(_package(part) for part in in_order)]
    digest = hashlib.sha256(json.dumps(packages, sort_keys=True).encode()).hexdigest()
    relations = [("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-qemubox")]
    relations += [("SPDXRef-qemubox", "CONTAINS", part.identifier) for part in in_order]
    text = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"qemubox-{version}-linux-x86_64",
        "documentNamespace": f"urn:qemubox:{version}:{digest}",
        "creationInfo": {
            "created": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": ["Tool: qemubox-deploy-release"],
        },
        "packages": packages,
        "relationships": [
            {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
            for one, kind, other in relations
        ],
    }
    return json.dumps(text, indent=1) + "\n"


def _package(part: Part) -> dict[str, object]:
    package: dict[str, object] = {
        "SPDXID": part.identifier,
        "name": part.name,
        "versionInfo": part.version,
        "downloadLocation": _NONE,
        "filesAnalyzed": False,
        "licenseConcluded": _NONE,
        "licenseDeclared": _NONE,
        "copyrightText": _NONE,
        "comment": f"in {part.where}",
        "externalRefs": [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": part.purl}
        ],
    }
    if part.sha256:
        package["checksums"] = [{"algorithm": "SHA256", "checksumValue": part.sha256}]
    if part.note:
        package["sourceInfo"] = part.note
    return package


def main() -> None:
    version, epoch, out, *sources = sys.argv[1:]
    parts = [part for source in sources for part in parts_of(source)]
    Path(out).write_text(document(version, int(epoch), parts))


if __name__ == "__main__":
    main()
