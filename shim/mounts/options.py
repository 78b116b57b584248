"""The words of a mount's options, as runtime-spec (config.md, "Linux mount options") and crun have them. Pure."""

from collections.abc import Sequence
from typing import Final

from shim.errors import SpecError
from shim.json_types import Json

# Words of mount(8) that runtimes make flags of; each has one with an `r` in front for all that is mounted below.
_FLAGS: Final = (
    *("ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "dirsync", "mand", "nomand"),
    *("atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime"),
)
BINDS: Final = frozenset({"bind", "rbind"})
SHARED: Final = frozenset({"shared", "rshared"})
SLAVE: Final = frozenset({"slave", "rslave"})
_PROPAGATION: Final = SHARED | SLAVE | {"private", "rprivate", "unbindable", "runbindable"}
IDMAP: Final = frozenset({"idmap", "ridmap"})
# What crun makes something of; all others are the file system's own.
WORDS: Final = frozenset(
    (
        *_FLAGS,
        *(f"r{word}" for word in _FLAGS),
        *("defaults", "remount", "silent", "loud", "iversion", "noiversion", ""),
        *BINDS,
        *_PROPAGATION,
    )
)


def words_of(mount: Json) -> tuple[str, ...]:
    """The options as a list of words. Raises SpecError where they are none."""
    options = mount.get("options") or []
    words = options if isinstance(options, list) else [None]
    found = tuple(word for word in words if isinstance(word, str))
    if len(found) != len(words):
        raise SpecError(f"mount options of {mount.get('destination')}: {options!r} is not a list of words")
    return found


def is_bind(kind: object, words: Sequence[str]) -> bool:
    """Whether it is a bind mount, by its type or, whatever the type is, by an option (runtime-spec, "type")."""
    return kind == "bind" or not BINDS.isdisjoint(words)


def is_read_only(words: Sequence[str]) -> bool:
    """The last word counts, as in mount(8)."""
    said = [word for word in words if word in ("ro", "rw", "rro", "rrw")]
    return bool(said) and said[-1] in ("ro", "rro")
