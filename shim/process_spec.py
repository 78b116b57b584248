"""The OCI process of an exec: what the guest gets of it.

What shim/spec.py does for a container's first process and all around it, for one that joins
a container which runs already: its namespaces, mounts, limits and filters are that
container's, so there is only the process itself to look at. A list of what goes on, and not
of what does not: nothing of a later specification reaches the guest unlooked at.
https://github.com/opencontainers/runtime-spec/blob/main/config.md#process
"""

import json
from typing import Final

from shim.errors import SpecError
from shim.spec import Json

# Left out: labels of security modules (apparmorProfile, selinuxLabel), which the guest's kernel does not have;
# CPUs of the host (execCPUAffinity); and what is for Windows (commandLine).
_FOR_THE_GUEST: Final = (
    *("args", "env", "cwd", "user", "terminal", "consoleSize"),
    *("capabilities", "rlimits", "noNewPrivileges", "oomScoreAdj", "scheduler", "ioPriority"),
)


def process_for_guest(document: bytes, *, terminal: bool) -> bytes:
    """What crun in the guest is to be given for the OCI process `document`, both JSON. Raises SpecError.

    Whether it gets a terminal says the call, as in containerd's own shim, whatever the document says.
    """
    try:
        process = json.loads(document)
    except ValueError as error:
        raise SpecError(f"the process to exec is not JSON: {error}") from error
    if not isinstance(process, dict):
        raise SpecError("the process to exec is not a JSON object")
    kept: Json = {name: process[name] for name in _FOR_THE_GUEST if process.get(name) is not None}
    args = kept.get("args")
    if not isinstance(args, list) or not args:
        raise SpecError(f"args of the process to exec is {args!r}: it must name a program")
    kept["terminal"] = terminal
    return json.dumps(kept, separators=(",", ":")).encode()
