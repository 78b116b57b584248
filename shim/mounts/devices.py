"""Block devices that a specification lists among its devices: each becomes a disk of the machine, like a mounted one.

That is how clients give a container a whole disk (ctr and nerdctl --device, the volumeDevices of Kubernetes). The rule
that allows it names the host's numbers, which may be those of another disk in the guest: it goes, and vminitd makes one
for the numbers that the disk has there.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from shim.errors import SpecError
from shim.json_types import Json, JsonValue

_SYS: Final = Path("/sys/dev/block")


def as_mounts(devices: Iterable[Json], rules: Iterable[JsonValue]) -> list[Json]:
    """The mounts that mean the same as those of `devices` that are block devices. Blocks. Raises SpecError."""
    rules = [*rules]
    return [_as_mount(device, rules) for device in devices if device.get("type") == "b"]


def without_rules(rules: Iterable[JsonValue], devices: Iterable[Json]) -> list[JsonValue]:
    """`rules` without those for the block devices among `devices`."""
    numbers = [_number(device) for device in devices if device.get("type") == "b"]
    return [
        rule for rule in rules if not (isinstance(rule, dict) and rule.get("type") == "b" and _number(rule) in numbers)
    ]


def _as_mount(device: Json, rules: list[JsonValue]) -> Json:
    options: list[JsonValue] = ["rw" if _may_write(device, rules) else "ro"]
    for name, key, text in (("mode", "fileMode", "{:o}"), ("uid", "uid", "{}"), ("gid", "gid", "{}")):
        value = device.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            options.append(f"{name}={text.format(value & 0o777 if name == 'mode' else value)}")
    return {"destination": device.get("path"), "type": "raw", "source": _node(device), "options": options}


def _node(device: Json) -> str:
    """The path of the host's node with these numbers."""
    major, minor = _number(device)
    what = f"the container asks for the device {device.get('path')} (b {major}:{minor}), which the host has not"
    if any(isinstance(number, bool) or not isinstance(number, int) for number in (major, minor)):
        raise SpecError(what)
    try:
        words = (_SYS / f"{major}:{minor}" / "uevent").read_text().splitlines()
        node = "/dev/" + next(word for word in words if word.startswith("DEVNAME=")).removeprefix("DEVNAME=")
        status = os.stat(node)
    except (OSError, StopIteration) as error:
        raise SpecError(what, hint="name a block device of the host, or the image of a disk") from error
    if not stat.S_ISBLK(status.st_mode) or (os.major(status.st_rdev), os.minor(status.st_rdev)) != (major, minor):
        raise SpecError(what, hint=f"{node} is another device")
    return node


def _may_write(device: Json, rules: list[JsonValue]) -> bool:
    """The last rule that is about the device and writing counts (config-linux.md, "Allowed Device list")."""
    allowed = False
    for rule in rules:
        if not isinstance(rule, dict) or "w" not in str(rule.get("access") or "rwm"):
            continue
        about = rule.get("type") or "a"
        same = all(rule.get(key) in (None, -1, device.get(key)) for key in ("major", "minor"))
        if about == "a" or (about == "b" and same):
            allowed = rule.get("allow") is True
    return allowed


def _number(holder: Json) -> tuple[JsonValue, JsonValue]:
    return holder.get("major"), holder.get("minor")
