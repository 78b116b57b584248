# mypy: disable-error-code="type-arg"
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class QmpRequest(_message.Message):
    __slots__ = ("container_id", "command", "arguments", "force")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    command: str
    arguments: str
    force: bool
    def __init__(self, container_id: _Optional[str] = ..., command: _Optional[str] = ..., arguments: _Optional[str] = ..., force: _Optional[bool] = ...) -> None: ...

class QmpResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: str
    def __init__(self, result: _Optional[str] = ...) -> None: ...

class ExecuteRequest(_message.Message):
    __slots__ = ("container_id", "arguments", "stdin", "stdout", "stderr", "has_stdin", "limit_ms")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    STDIN_FIELD_NUMBER: _ClassVar[int]
    STDOUT_FIELD_NUMBER: _ClassVar[int]
    STDERR_FIELD_NUMBER: _ClassVar[int]
    HAS_STDIN_FIELD_NUMBER: _ClassVar[int]
    LIMIT_MS_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    arguments: _containers.RepeatedScalarFieldContainer[bytes]
    stdin: int
    stdout: int
    stderr: int
    has_stdin: bool
    limit_ms: int
    def __init__(self, container_id: _Optional[str] = ..., arguments: _Optional[_Iterable[bytes]] = ..., stdin: _Optional[int] = ..., stdout: _Optional[int] = ..., stderr: _Optional[int] = ..., has_stdin: _Optional[bool] = ..., limit_ms: _Optional[int] = ...) -> None: ...

class Execution(_message.Message):
    __slots__ = ("ended", "status", "late")
    ENDED_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    ended: bool
    status: int
    late: bool
    def __init__(self, ended: _Optional[bool] = ..., status: _Optional[int] = ..., late: _Optional[bool] = ...) -> None: ...
