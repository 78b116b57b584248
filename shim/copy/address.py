"""How `qemubox` finds a container's shim: a file in each shim's directory says for whom it is and where it listens.

It is there from the daemon's start on, and goes with the directory.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, NamedTuple

from shim import whole
from shim.errors import HostError, NotFoundError, SpecError

FILE_NAME: Final = "address.json"
# Where nerdctl writes down the name that people give a container.
_NAME: Final = "nerdctl/name"
_SHORTEST: Final = 4


@dataclass(frozen=True, slots=True)
class Address:
    """A shim: containerd's namespace and id of its container, the bundle, and the socket that it listens at."""

    namespace: str
    id: str
    bundle: str
    socket: str


def write(directory: Path, address: Address) -> None:
    """Leave it in the shim's directory, for root to read. Raises OSError."""
    whole.write(directory / FILE_NAME, asdict(address))


class Shim(NamedTuple):
    """A shim's directory, and what it has written there of itself."""

    directory: Path
    address: Address


def find(state_dir: Path, container: str, namespace: str = "") -> Address:
    """The shim that files are to be copied by; as `locate`."""
    hint = "start it, or copy with nerdctl cp, which looks into the snapshot of a container without a task"
    return locate(state_dir, container, namespace, hint=hint).address


def locate(state_dir: Path, container: str, namespace: str = "", *, hint: str = "see qemubox ps") -> Shim:
    """The shim of the container of that id, nerdctl name or beginning of an id, in `namespace` if one is given.

    Raises NotFoundError, with that hint, SpecError where several fit, or none is named, HostError for a file that
    cannot be read.
    """
    if not container:  # as from "$ID": it is nerdctl's name of all that have none
        raise SpecError("no container is named: what stands for its id is empty")
    known = [each for each in shims(state_dir) if namespace in ("", each.address.namespace)]
    for fits in (
        [each for each in known if each.address.id == container],
        [each for each in known if _nerdctl_name(each.address.bundle) == container],
        [each for each in known if len(container) >= _SHORTEST and each.address.id.startswith(container)],
    ):
        if len(fits) > 1:
            several = ", ".join(f"{each.address.id} of namespace {each.address.namespace}" for each in fits)
            raise SpecError(
                f"{container} is more than one container: {several}", hint="say --namespace, or the whole id"
            )
        if fits:
            return fits[0]
    where = f" in namespace {namespace}" if namespace else ""
    raise NotFoundError(f"container {container}{where} has no machine", hint=hint)


def shims(state_dir: Path) -> list[Shim]:
    """All that there are. Raises HostError for what cannot be read."""
    found = []
    for path in sorted(state_dir.glob(f"vm/*/{FILE_NAME}")):
        try:
            found.append(Shim(path.parent, Address(**json.loads(path.read_text()))))
        except FileNotFoundError:  # it ended while we looked
            continue
        except PermissionError:
            raise HostError(f"{path} cannot be read", hint="machines are root's") from None
        except (OSError, ValueError, TypeError) as error:
            raise HostError(f"{path} cannot be read: {error}") from error
    if not found and not os.access(state_dir, os.R_OK | os.X_OK) and os.path.lexists(state_dir):
        raise HostError(f"{state_dir} cannot be read", hint="machines are root's")
    return found


def _nerdctl_name(bundle: str) -> str:
    """The name in the annotations of the container's specification; empty where there is none."""
    try:
        annotations = json.loads(Path(bundle, "config.json").read_bytes()).get("annotations")
    except (OSError, ValueError):
        return ""
    return str(annotations.get(_NAME, "")) if isinstance(annotations, dict) else ""
