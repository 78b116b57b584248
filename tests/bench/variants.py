"""What is compared: each variant is a runtime, and for qemubox a configuration by name.

A further one is a further line of VARIANTS. Those that cannot run on a host are left out
there and named in the report, with why.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

from harness.qemubox import Sections


@dataclass(frozen=True)
class Variant:
    """`start` and `memory` are the machine's; `changes` are those to the configuration."""

    name: str
    runtime: Literal["runc", "qemubox"]
    start: Literal["", "cold", "clone"] = ""
    memory: Literal["", "private", "shared"] = ""
    changes: Sections = field(default_factory=dict)

    @property
    def is_vm(self) -> bool:
        """Whether there is a machine."""
        return self.runtime == "qemubox"

    @property
    def memory_from(self) -> str:
        """What the shim's log calls it (shim/prelaunch.py): who shares its memory cannot have its template's."""
        if self.start != "clone":
            return "booted"
        return "private" if self.memory == "private" else "copied"


# A machine with vsock by a vhost-user daemon shares its memory with that; one with virtio-serial has its own.
_PRIVATE: Final[Sections] = {"vsock": {"mode": "serial"}}
_SHARED: Final[Sections] = {"vsock": {"mode": "user"}}
_COLD: Final[Sections] = {"template": {"mode": "off"}}

VARIANTS: Final = (
    Variant("runc", "runc"),
    Variant("cold, private", "qemubox", "cold", "private", {**_PRIVATE, **_COLD}),
    Variant("cold, shared", "qemubox", "cold", "shared", {**_SHARED, **_COLD}),
    Variant("clone, private", "qemubox", "clone", "private", _PRIVATE),
    Variant("clone, shared", "qemubox", "clone", "shared", _SHARED),
)
