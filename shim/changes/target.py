"""Where a container's changes go. A value."""

import enum
from dataclasses import dataclass
from pathlib import Path


class Kind(enum.Enum):
    """What a deletion becomes in the directory."""

    # The upper directory of an overlay: a character device 0:0, and trusted.overlay.opaque.
    OVERLAY = enum.auto()
    # A plain directory, which is all of the root file system: it is carried out.
    PLAIN = enum.auto()


@dataclass(frozen=True, slots=True)
class Target:
    """A snapshot's directory, and the image whose changes it takes."""

    # On the host.
    directory: Path
    kind: Kind
    # Nothing is in it but what the guest's upper directory holds: it was empty at the image's first start.
    mirror: bool
    # A descriptor of the writable image, open for reading by whoever runs this.
    image: int
    # What was applied is remembered in this file, for as long as the image lives, and in one beside it whose name
    # has `.new` appended, while it is being applied.
    record: Path
    # An earlier start has written to the image. What is remembered of that is no proof: the host may have lost its
    # power before the directory was on its disk, or somebody has changed that since.
    taken_up: bool = False

    @property
    def has_earlier(self) -> bool:
        """What earlier starts have left in it is the topmost lower layer that the guest has, below which are others."""
        return self.kind is Kind.OVERLAY and not self.mirror
