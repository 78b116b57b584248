"""The options of an overlay or bind mount, as a snapshotter writes them.

The mount is never made on the host, so each option is either carried over into the
guest's overlay, or has no effect there, or would change what the container sees: the
last kind is refused by name.
https://docs.kernel.org/filesystems/overlayfs.html
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shim.errors import UnsupportedError

MKDIR_PREFIX: Final = "X-containerd.mkdir."

# Without meaning for other layers than the ones they were made for: how inodes are numbered and indexed on
# the host, how durable the host's copy is. Renamed directories are followed by every overlay that is not told not to.
_WITHOUT_EFFECT: Final = re.compile(
    r"rw|volatile|(index|nfs_export)=(on|off)|xino=(on|off|auto)|uuid=(on|off|null|auto)"
    r"|redirect_dir=(on|off|follow|nofollow)|(metacopy|verity)=off"
)
_REASONS: Final = {
    "userxattr": "the layers were made by a rootless containerd",
    "metacopy": "files without their data cannot be converted",
    "uidmap": "only the layers of an overlay can be given other owners",
    "gidmap": "only the layers of an overlay can be given other owners",
    "lowerdir+": "not written by any containerd up to 2.4",
    "datadir+": "data-only layers are not there",
}
_MAP: Final = re.compile(r"(\d+):(\d+):(\d+)(,(\d+):(\d+):(\d+))*")
_DIRECTORY: Final = re.compile(r"path=([^:]+)(?::([0-7]+)(?::(\d+):(\d+))?)?")


@dataclass(frozen=True, slots=True)
class NewDirectory:
    """A directory that must exist before the mount: `X-containerd.mkdir.path=PATH[:mode[:uid:gid]]`."""

    path: str
    mode: int = 0o700
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class Owners:
    """Whose a layer's files are to be seen as: maps of user and group numbers, as user_namespaces(7) has their text."""

    uid_map: str
    gid_map: str


@dataclass(frozen=True, slots=True)
class OverlayOptions:
    """`lower` is topmost first; `upper` and `work` are empty for a read-only overlay."""

    lower: tuple[str, ...]
    upper: str = ""
    work: str = ""
    read_only: bool = False
    directories: tuple[NewDirectory, ...] = ()
    owners: Owners | None = None


@dataclass(frozen=True, slots=True)
class BindOptions:
    """A bind mount's options. The mount is recursive, or a snapshot's directory has nothing mounted below it."""

    read_only: bool
    directories: tuple[NewDirectory, ...] = ()


def read_overlay(options: Sequence[str]) -> OverlayOptions:
    """Understand an overlay's options. Raises UnsupportedError, which names the option."""
    values = {"lowerdir": "", "upperdir": "", "workdir": "", "uidmap": "", "gidmap": ""}
    directories: list[NewDirectory] = []
    read_only = False
    for option in options:
        name, _, value = option.partition("=")
        if name in values:
            values[name] = value
        elif option == "ro":
            read_only = True
        elif option.startswith(MKDIR_PREFIX):
            directories.append(read_directory(option))
        elif not _WITHOUT_EFFECT.fullmatch(option):
            raise _refusal("overlay", option)
    if not values["lowerdir"]:
        raise UnsupportedError("overlay mount without lowerdir")
    if bool(values["upperdir"]) != bool(values["workdir"]):
        raise UnsupportedError("overlay mount with only one of upperdir and workdir")
    return OverlayOptions(
        split_lowerdir(values["lowerdir"]),
        values["upperdir"],
        values["workdir"],
        read_only,
        tuple(directories),
        _owners(values["uidmap"], values["gidmap"]),
    )


def _owners(uid_map: str, gid_map: str) -> Owners | None:
    """Of `INSIDE:OUTSIDE:SIZE[,…]`, as containerd writes it (core/mount/mount_idmapped_linux.go)."""
    if not uid_map and not gid_map:
        return None
    if not uid_map or not gid_map:
        raise UnsupportedError("overlay mount with only one of uidmap and gidmap")
    for value in (uid_map, gid_map):
        if not _MAP.fullmatch(value):
            raise UnsupportedError(f"overlay mount with the map of owners {value}: not understood")
    return Owners(*(value.replace(":", " ").replace(",", "\n") for value in (uid_map, gid_map)))


def read_bind(options: Sequence[str]) -> BindOptions:
    """Understand a bind mount's options. Raises UnsupportedError, which names the option."""
    directories: list[NewDirectory] = []
    for option in options:
        if option.startswith(MKDIR_PREFIX):
            directories.append(read_directory(option))
        elif option not in ("bind", "rbind", "ro", "rw"):
            raise _refusal("bind", option)
    return BindOptions("ro" in options, tuple(directories))


def split_lowerdir(value: str) -> tuple[str, ...]:
    """The directories of `lowerdir=`; a backslash takes the meaning from a colon (Linux, ovl_parse_param_lowerdir)."""
    found = tuple(re.sub(r"\\(.)", r"\1", part) for part in re.findall(r"(?:^|:)((?:[^:\\]|\\.)*)", value, re.DOTALL))
    if "" in found:
        raise UnsupportedError(f"overlay mount with lowerdir={value}: data-only layers are not there")
    return found


def read_directory(option: str) -> NewDirectory:
    """Read one `X-containerd.mkdir.` option (core/mount/manager/mkdir.go). Raises UnsupportedError."""
    words = _DIRECTORY.fullmatch(option.removeprefix(MKDIR_PREFIX))
    if words is None or int(words[2] or "0", 8) > 0o777:
        raise UnsupportedError(f"mount option {option}: not understood")
    return NewDirectory(words[1], int(words[2] or "700", 8), int(words[3] or 0), int(words[4] or 0))


def _refusal(kind: str, option: str) -> UnsupportedError:
    reason = _REASONS.get(option.partition("=")[0], "its meaning inside a virtual machine is not known")
    return UnsupportedError(f"{kind} mount with option {option}: {reason}")
