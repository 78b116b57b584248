"""Mounts for the files of names that a client has left out."""

import json
from pathlib import Path

import pytest

from shim.spec import FILE_SOURCE_PREFIX, HostFile, Json, JsonValue, OwnFile, for_guest


def _spec(*mounts: JsonValue) -> Json:
    linux: Json = {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")]}
    return {
        "root": {"path": "rootfs"},
        "process": {"args": ["true"], "cwd": "/"},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}, *mounts],
        "linux": linux,
    }


def _bind(source: Path, destination: str) -> Json:
    return {"destination": destination, "type": "bind", "source": str(source), "options": ["bind", "ro"]}


def test_none_are_mounted_unasked() -> None:
    guest = for_guest(_spec(), terminal=False)
    assert (guest.own_files, len(json.loads(guest.json)["mounts"])) == ((), 1)


def test_all_of_them_come_behind_the_others() -> None:
    guest = for_guest(_spec(), terminal=False, names=True)
    assert [file.destination for file in guest.own_files] == ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"]
    assert [mount["destination"] for mount in json.loads(guest.json)["mounts"]] == [
        "/proc",
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
    ]


@pytest.mark.parametrize(
    ("hosts", "resolv"), [("/etc/hosts", "/etc/resolv.conf"), ("/etc//hosts", "//etc/./resolv.conf")]
)
def test_only_those_that_nothing_stands_for(tmp_path: Path, hosts: str, resolv: str) -> None:
    path = tmp_path / "file"
    path.touch()
    guest = for_guest(_spec(_bind(path, hosts), _bind(path, resolv)), terminal=False, names=True)
    assert guest.files == (HostFile("0", path), HostFile("1", path))
    assert guest.own_files == (OwnFile("own-hostname", "/etc/hostname"),)
    assert json.loads(guest.json)["mounts"][3:] == [
        {
            "destination": "/etc/hostname",
            "type": "bind",
            "source": f"{FILE_SOURCE_PREFIX}own-hostname",
            "options": ["bind", "rw"],
        }
    ]
