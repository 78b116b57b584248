"""How a call ends when it does not end well.

The numbers are gRPC's, because ttrpc carries a `google.rpc.Status`:
https://grpc.github.io/grpc/core/md_doc_statuscodes.html

This module imports nothing but `enum`: whoever only wants to name an error pays nothing for it.
"""

import enum


class Code(enum.IntEnum):
    """gRPC's status codes."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16

    @classmethod
    def from_wire(cls, number: int) -> "Code":
        """The code of this number; UNKNOWN for one that gRPC does not define."""
        try:
            return cls(number)
        except ValueError:
            return cls.UNKNOWN


class StatusError(Exception):
    """A call ended with a status other than OK.

    A handler raises it to answer with that status; a stub raises what the server answered. Never with Code.OK.
    """

    def __init__(self, code: Code, message: str) -> None:
        if code == Code.OK:
            raise ValueError(f"OK is not an error: {message}")
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


class ConnectionClosed(StatusError):
    """The peer is gone: nothing more will come, and what was called may or may not have happened."""

    def __init__(self, message: str = "the peer closed the connection") -> None:
        super().__init__(Code.UNAVAILABLE, message)

    def __reduce__(self) -> tuple[type["ConnectionClosed"], tuple[str]]:
        return (ConnectionClosed, (self.message,))
