"""Privileged containers: all devices of the machine, in the place of all devices of the host.

A client that is asked for `--privileged` lists every device of the host and allows all of them by one rule
(containerd's WithHostDevices and WithAllDevicesAllowed, pkg/oci/spec_opts.go). What is meant is the machine that the
container runs on, and here that is its own: nothing of the host can be reached by any of its devices. So the list of
the host's gives way to what the guest's kernel has. A device that was asked for by name (`--device`) has a rule of its
own in those same clients, and stays what it is without `--privileged`: a disk, or refused.

Pure.
"""

from collections.abc import Iterable
from typing import Final

from shim.json_types import Json, JsonValue


def _node(path: str, kind: str, major: int, minor: int, mode: int = 0o600) -> Json:
    return {"path": f"/dev/{path}", "type": kind, "major": major, "minor": minor, "fileMode": mode, "uid": 0, "gid": 0}


DEVICES: Final[tuple[Json, ...]] = (
    _node("kmsg", "c", 1, 11, 0o644),
    _node("fuse", "c", 10, 229, 0o666),
    _node("net/tun", "c", 10, 200, 0o666),
    _node("autofs", "c", 10, 235),
    _node("btrfs-control", "c", 10, 234),
    _node("loop-control", "c", 10, 237),
    # The kernel makes such a disk when loop-control is asked for the next free one; nobody adds its node in here.
    *(_node(f"loop{number}", "b", 7, number) for number in range(8)),
)
"""What a privileged container has beyond the usual (null, tty and so on, which crun makes by itself).

Numbers: Documentation/admin-guide/devices.txt of the kernel, whose configuration (kernel/config) is fixed. Left out are
the ports to the host and the machine's own disks and consoles.
"""


def allows_all(rules: Iterable[JsonValue]) -> bool:
    """Whether these device rules allow every device; the last one that is about all of them counts."""
    allowed = False
    for rule in rules:
        if isinstance(rule, dict) and _is_about_all(rule):
            allowed = rule.get("allow") is True
    return allowed


def asked_by_name(devices: Iterable[Json], rules: Iterable[JsonValue]) -> list[Json]:
    """Those of `devices` that some rule allows by their numbers."""
    named = [_number(rule) for rule in rules if isinstance(rule, dict) and rule.get("allow") is True]
    return [device for device in devices if _number(device) in named]


def _is_about_all(rule: Json) -> bool:
    everything = all(rule.get(key) in (None, -1) for key in ("major", "minor"))
    return everything and (rule.get("type") or "a") == "a" and {*"rwm"} <= {*str(rule.get("access") or "rwm")}


def _number(holder: Json) -> tuple[JsonValue, ...]:
    kind = holder.get("type")
    return ("c" if kind == "u" else kind, holder.get("major"), holder.get("minor"))
