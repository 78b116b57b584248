"""An overlay of any number of layers.

The parameters go to the kernel one by one (fsconfig(2)): mount(2) has one page for all of them, which fifty to a
hundred layers fill. Overlayfs itself takes 500 (OVL_MAX_STACK). `lowerdir+` also needs no quoting of colons.

The writable layer goes back to the host (commit, diff), where containerd's overlayfs or its diff reads it. So no
feature may be used that writes what they do not understand: no inode index, no redirected directories, no metadata-only
copies. https://docs.kernel.org/filesystems/overlayfs.html
"""

from collections.abc import Sequence

from vminitd.errors import MountError
from vminitd.libc import MS_RDONLY, mount_by_parameters

_PORTABLE = (("index", "off"), ("redirect_dir", "off"), ("metacopy", "off"))


def parameters(lower: Sequence[str], upper: str, work: str) -> list[tuple[str, str]]:
    """What fsconfig is told: `lower` topmost first; an empty `upper` makes the overlay read-only. Pure."""
    words = [("source", "overlay"), *(("lowerdir+", path) for path in lower)]
    if upper:
        words += [("upperdir", upper), ("workdir", work), *_PORTABLE]
    return words


def mount_overlay(target: str, lower: Sequence[str], upper: str = "", work: str = "") -> None:
    """Mounts the overlay on `target`. Raises MountError with the kernel's own explanation."""
    try:
        mount_by_parameters("overlay", target, parameters(lower, upper, work), attributes=0 if upper else MS_RDONLY)
    except OSError as error:
        raise MountError(f"cannot put {len(lower)} layers together: {error.strerror}") from error
