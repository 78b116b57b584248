# mypy: disable-error-code="type-arg"
from api import guest_pb2 as _guest_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RunRequest(_message.Message):
    __slots__ = ("arguments", "streams", "limit_ms")
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_MS_FIELD_NUMBER: _ClassVar[int]
    arguments: _containers.RepeatedScalarFieldContainer[bytes]
    streams: _guest_pb2.Stdio
    limit_ms: int
    def __init__(self, arguments: _Optional[_Iterable[bytes]] = ..., streams: _Optional[_Union[_guest_pb2.Stdio, _Mapping]] = ..., limit_ms: _Optional[int] = ...) -> None: ...

class RunResponse(_message.Message):
    __slots__ = ("program", "pid")
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    program: int
    pid: int
    def __init__(self, program: _Optional[int] = ..., pid: _Optional[int] = ...) -> None: ...

class EndedRequest(_message.Message):
    __slots__ = ("program",)
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    program: int
    def __init__(self, program: _Optional[int] = ...) -> None: ...

class EndedResponse(_message.Message):
    __slots__ = ("status", "late")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    status: int
    late: bool
    def __init__(self, status: _Optional[int] = ..., late: _Optional[bool] = ...) -> None: ...

class EndRequest(_message.Message):
    __slots__ = ("program",)
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    program: int
    def __init__(self, program: _Optional[int] = ...) -> None: ...

class EndResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
