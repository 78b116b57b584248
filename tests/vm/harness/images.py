"""The images that the tests run, made by the installer's own image maker.

BUSYBOX one layer, every applet of busybox. NOBODYS the same for user 65534. CHANGES the same with what can be changed
in every way, setcap, and all places where something is mounted. NETWORK has a second layer with this host's
iperf3, socat and ip. LAYERS one hundred layers, of which later ones add, replace and remove what earlier ones brought.
MORE_LAYERS has as many as need two disks.
"""

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from deploy.image import BUSYBOX as BUSYBOX_PROGRAM
from deploy.image import Entry, busybox_layer, directory, file, symlink, whiteout, write_archive
from harness.flavours import MissingPart

BUSYBOX: Final = "localhost/qemubox/busybox:1"
NOBODYS: Final = "localhost/qemubox/nobodys:1"
CHANGES: Final = "localhost/qemubox/changes:1"
NETWORK: Final = "localhost/qemubox/network:1"
LAYERS: Final = "localhost/qemubox/layers:100"
LAYER_COUNT: Final = 100
MORE_LAYERS: Final = "localhost/qemubox/layers:130"
MORE_LAYER_COUNT: Final = 130
_NETWORK_PROGRAMS: Final = (Path("/usr/bin/iperf3"), Path("/usr/bin/socat"), Path("/bin/ip"))
# cap_net_raw, effective and permitted (linux/capability.h, struct vfs_cap_data, revision 2).
_CAPABILITY: Final = "\x01\0\0\x02\0\x20\0\0" + 12 * "\0"
_LOADER: Final = Path("/lib64/ld-linux-x86-64.so.2")


def archive(name: str, directory_: Path) -> Path:
    """The image `name` as a tar file in `directory_`, made if it is not there. Raises MissingPart."""
    out = directory_ / (name.replace("/", "-").replace(":", "-") + ".tar")
    if not out.exists():
        if not BUSYBOX_PROGRAM.exists():
            raise MissingPart(f"{BUSYBOX_PROGRAM} is not there: apt-get install busybox-static")
        counts = {LAYERS: LAYER_COUNT, MORE_LAYERS: MORE_LAYER_COUNT}
        layers = _stack(counts[name]) if name in counts else [busybox_layer()]
        layers += [programs_layer(_NETWORK_PROGRAMS)] if name == NETWORK else []
        layers[0] += _to_be_changed() if name == CHANGES else []
        write_archive(out, name, layers, user="65534" if name == NOBODYS else "")
    return out


def programs_layer(programs: Sequence[Path]) -> list[Entry]:
    """Programs of this host, with the loader and the libraries that it lists for each (ld.so(8), --list)."""
    files = {_LOADER}
    for program in programs:
        if not program.exists():
            raise MissingPart(f"{program} is not there: run ./test.sh, which installs what the tests need")
        listed = subprocess.run([_LOADER, "--list", program], check=True, capture_output=True, text=True, timeout=30)
        files |= {Path(line.split()[2]) for line in listed.stdout.splitlines() if " => " in line}
    directories = sorted({str(parent)[1:] for path in files for parent in path.parents if parent.name})
    copies = {str(path)[1:]: path for path in sorted(files)} | {f"bin/{path.name}": path for path in programs}
    return [*map(directory, directories), *(file(name, path.read_bytes(), 0o755) for name, path in copies.items())]


def _to_be_changed() -> list[Entry]:
    """In the image's one layer, since containerd can tell a change upon the erofs snapshotter's only there."""
    noted = replace(file("noted", b"of the image\n"), xattrs={"user.note": "kept", "security.capability": _CAPABILITY})
    listed = [directory("listed"), *(file(f"listed/{number}", b"x") for number in range(20))]
    replaced = [directory("replaced"), file("replaced/old", b"old\n"), directory("replaced/deep")]
    return [
        directory("run"),
        *programs_layer((Path("/sbin/setcap"),)),
        noted,
        *listed,
        *replaced,
        file("removed", b"x"),
    ]


def _stack(count: int) -> list[list[Entry]]:
    """As many layers: n (from 1) adds /layers/n, replaces /last, and takes away what layer n-10 added in /gone."""
    layers = [[*busybox_layer(), directory("layers"), directory("gone")]]
    for number in range(1, count):
        entries = [
            directory("layers"),
            file(f"layers/{number}", f"{number}\n".encode()),
            file("last", f"{number}\n".encode()),
            directory("gone"),
            file(f"gone/{number}", b""),
        ]
        if number > 10:
            entries.append(whiteout(f"gone/{number - 10}"))
        layers.append(entries)
    layers[-1] += [
        # An opaque directory hides all that lower layers have in it (OCI layer.md, "Opaque Whiteout").
        directory("etc/opaque"),
        file("etc/opaque/.wh..wh..opq", b""),
        file("etc/opaque/kept", b"kept\n"),
        Entry("setuid", 0o104755, b"#!/bin/sh\n", uid=12, gid=34),
        symlink("to-last", "last"),
    ]
    layers[1] += [directory("etc/opaque"), file("etc/opaque/hidden", b"")]
    return layers
