"""What a container has written goes into its snapshot's directory: the one entry for the rest of the shim."""

from dataclasses import dataclass

from shim.changes.target import Target
from shim.errors import UnsupportedError
from shim.guest import Guest
from shim.log import Logger


@dataclass(frozen=True, slots=True)
class Applied:
    """What one run did."""

    # Listed by the guest, the root directory included.
    entries: int = 0
    # Made or changed on the host.
    applied: int = 0
    # Names that are gone from the host.
    removed: int = 0
    # Data copied out of the image.
    data_bytes: int = 0


class WriteBack:
    """The changes of one container. `run` may be called any number of times, one at a time."""

    def __init__(self, container_id: str, guest: Guest, target: Target, log: Logger) -> None:
        self._container_id = container_id
        self._guest = guest
        self._target = target
        self._log = log

    async def run(self, deadline_s: float) -> Applied:
        """Bring the target up to what the guest's upper directory holds now.

        Whatever writes there must stand still, or have ended. Raises GuestError (vminitd's own error, a listing that
        cannot be, the deadline), MachineError, ResourceError (the host's disk is full) or HostError. After an error
        the directory may hold a part of the changes; the next run, in this shim or another, does the rest.
        """
        raise UnsupportedError(f"changes of {self._container_id} cannot be written to {self._target.directory} yet")
