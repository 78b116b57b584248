"""What `qemubox inspect` shows of a running machine: one JSON file in each shim's directory, written at its start.

For people and tests, not for the shim, which never reads it. It goes with the directory.
"""

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shim import whole
from shim.errors import HostError, NotFoundError
from shim.reclaim import command_line

FILE_NAME: Final = "machine.json"


@dataclass(frozen=True, slots=True)
class Interface:
    """One network interface: its TAP on the host, pairs of queues, and whether the host's kernel carries its frames."""

    mac: str
    tap: str
    queues: int
    vhost: bool


@dataclass(frozen=True, slots=True)
class Inspection:
    """One machine. `memory` is "private", shared with its template until it is written to; "copied" from the
    template, as where a vhost-user device must map it; or "booted", of a machine that is no clone.
    """

    namespace: str
    id: str
    shim_pid: int
    qemu_pid: int
    # The template that it is a clone of; empty for one that has booted.
    template: str
    memory: str
    memory_shared: bool
    # "serial", "kernel" or "user": the values of vsock.mode.
    link: str
    accelerator: str
    vcpus: int
    # The CPUs of the host that it runs on, "0-3,6"; empty: all that containerd may use.
    host_cpus: str
    base_memory_mib: int
    memory_mib: int
    # Where the guest finds each disk, by the shim's name for it.
    disks: Mapping[str, str]
    # The container's network namespace on the host; empty where it has no network. Its interfaces, by their names.
    netns: str
    interfaces: Mapping[str, "Interface"]
    console: str
    # Whether a prompt answers there; where QEMU waits for a debugger, empty: nowhere. Both are for [debug] alone.
    guest_console: bool = False
    gdb: str = ""


def write(directory: Path, inspection: Inspection) -> None:
    """Leave it in the shim's directory, for root to read. Raises OSError."""
    whole.write(directory / FILE_NAME, dataclasses.asdict(inspection), indent=1)


def read(directory: Path) -> Inspection | None:
    """What the shim of that directory has written; None before its container has started, and when it has ended.

    Of a shim of another version, what this one knows. Raises HostError for a file that cannot be read.
    """
    path = directory / FILE_NAME
    try:
        document = json.loads(path.read_text())
        known = {field.name: document[field.name] for field in dataclasses.fields(Inspection) if field.name in document}
        known["interfaces"] = {name: Interface(**each) for name, each in known["interfaces"].items()}
        return Inspection(**known)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise HostError(f"{path} cannot be read: {error}") from error


def find(state_dir: Path, container_id: str, namespace: str = "") -> Iterator[dict[str, object]]:
    """All machines of that container id, in `namespace` if one is given, that are there now.

    With the shim's directory as "directory", and QEMU's command line as "qemu". Raises NotFoundError for none,
    HostError for a file that cannot be read.
    """
    found = False
    for path in sorted(state_dir.glob(f"vm/*/{FILE_NAME}")):
        try:
            document = json.loads(path.read_text())
        except FileNotFoundError:  # it ended while we looked
            continue
        except (OSError, ValueError) as error:
            raise HostError(f"{path} cannot be read: {error}") from error
        if document.get("id") == container_id and namespace in ("", document.get("namespace")):
            found = True
            yield document | {"directory": str(path.parent), "qemu": _command_line(document["qemu_pid"])}
    if not found:
        where = f" in namespace {namespace}" if namespace else ""
        raise NotFoundError(f"no machine runs for container {container_id}{where}")


def _command_line(pid: int) -> list[str]:
    return [os.fsdecode(word) for word in command_line(pid).split(b"\0")[:-1]]
