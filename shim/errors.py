"""Everything that can go wrong in the shim, as one tree.

    QemuboxError
    ├── ConfigError            a key or value in /etc/qemubox/config.toml          InvalidArgument
    ├── SpecError              the container asks for what cannot be given          InvalidArgument
    ├── UnsupportedError       the call or the wish is known and not there          Unimplemented
    ├── MissingPartError       a program or file on the host is not there           FailedPrecondition
    ├── NotFoundError          no such container or process                         NotFound
    ├── AlreadyExistsError     the id is taken                                      AlreadyExists
    ├── StateError             the process is in a state that forbids the call      FailedPrecondition
    ├── ResourceError          the host has not enough of something                 ResourceExhausted
    ├── HostError              an operation on the host failed                      Internal
    │   └── TemplateError      a template is there and cannot be used
    ├── MachineError           the virtual machine did not come up, or is gone      Unavailable
    │   └── BootError          it never answered: phase, console tail, QEMU's stderr
    └── GuestError             vminitd answered with an error                       its own status

Each error has its gRPC status, a message that names what failed with the value,
and, where there is one, a hint that says what to do. Only the RPC edge
(`shim.task.service`) turns an error into a status; nothing else looks at `code`.
"""

from typing import ClassVar

from ttrpc import Code


class QemuboxError(Exception):
    """Base of all errors that a user gets to see.

    `message` is one line; `hint`, if any, one imperative sentence.
    """

    code: ClassVar[Code] = Code.UNKNOWN

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigError(QemuboxError):
    """A key is unknown or a value is not allowed."""

    code = Code.INVALID_ARGUMENT


class SpecError(QemuboxError):
    """The OCI specification asks for what a virtual machine cannot give."""

    code = Code.INVALID_ARGUMENT


class UnsupportedError(QemuboxError):
    """Known, but not there: never answered with success."""

    code = Code.UNIMPLEMENTED


class MissingPartError(QemuboxError):
    """A program or a file that the host must have is missing."""

    code = Code.FAILED_PRECONDITION


class NotFoundError(QemuboxError):
    """There is no such container or process (any more)."""

    code = Code.NOT_FOUND


class AlreadyExistsError(QemuboxError):
    """The id is in use."""

    code = Code.ALREADY_EXISTS


class StateError(QemuboxError):
    """The process is in a state in which the call makes no sense."""

    code = Code.FAILED_PRECONDITION


class ResourceError(QemuboxError):
    """The host has no room, memory or slots left."""

    code = Code.RESOURCE_EXHAUSTED


class HostError(QemuboxError):
    """A program or system call on the host failed."""

    code = Code.INTERNAL


class TemplateError(HostError):
    """A template is damaged, changed, or of something else: it is not used."""


class MachineError(QemuboxError):
    """The virtual machine is not there (any more)."""

    code = Code.UNAVAILABLE


class BootError(MachineError):
    """The machine never answered; the message names the phase and quotes console and stderr."""


class GuestError(QemuboxError):
    """vminitd refused: its own status and words are passed on."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.status = code
