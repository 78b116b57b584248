"""Everything that can go wrong in the guest, as one tree.

    GuestError
    ├── RequestError       the request contradicts itself or names what cannot be      InvalidArgument
    ├── UnknownError       no such container or process                                NotFound
    ├── TakenError         the id is in use                                            AlreadyExists
    ├── StateError         the process is in a state that forbids the call             FailedPrecondition
    ├── DeviceError        a disk, vCPU or memory did not appear in time               DeadlineExceeded
    ├── PortError          a port of the machine takes no connection                   Unavailable
    ├── MountError         a file system cannot be mounted or unmounted                Internal
    ├── CrunError          crun refused; the message is crun's own                     Internal
    └── KernelError        another operation of the guest's kernel failed              Internal

They are ttrpc statuses, so that a handler answers with them as they are. Each message is one line with the value
that was wrong; the shim passes it on to the user's terminal.
"""

from typing import ClassVar

from ttrpc import Code, StatusError


class GuestError(StatusError):
    """Base of all errors that the shim gets to see."""

    status: ClassVar[Code] = Code.INTERNAL

    def __init__(self, message: str) -> None:
        super().__init__(self.status, message)

    def __reduce__(self) -> tuple[type["GuestError"], tuple[str]]:
        return (type(self), (self.message,))


class RequestError(GuestError):
    """The request contradicts itself, or names what cannot be."""

    status = Code.INVALID_ARGUMENT


class UnknownError(GuestError):
    """There is no such container or process (any more)."""

    status = Code.NOT_FOUND


class TakenError(GuestError):
    """The id is in use."""

    status = Code.ALREADY_EXISTS


class StateError(GuestError):
    """The process is in a state in which the call makes no sense."""

    status = Code.FAILED_PRECONDITION


class DeviceError(GuestError):
    """What the host plugs in did not appear in time."""

    status = Code.DEADLINE_EXCEEDED


class PortError(GuestError):
    """A port of the machine takes no connection."""

    status = Code.UNAVAILABLE


class MountError(GuestError):
    """A file system cannot be mounted, unmounted or put together."""


class CrunError(GuestError):
    """crun refused. The message is what crun logged."""


class KernelError(GuestError):
    """Another operation of the guest's kernel failed."""
