# mypy: disable-error-code="type-arg"
from api import guest_pb2 as _guest_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LookRequest(_message.Message):
    __slots__ = ("container_id", "path", "follow")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    path: bytes
    follow: bool
    def __init__(self, container_id: _Optional[str] = ..., path: _Optional[bytes] = ..., follow: _Optional[bool] = ...) -> None: ...

class LookResponse(_message.Message):
    __slots__ = ("mode", "target")
    MODE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    mode: int
    target: bytes
    def __init__(self, mode: _Optional[int] = ..., target: _Optional[bytes] = ...) -> None: ...

class ReadRequest(_message.Message):
    __slots__ = ("container_id", "path", "follow", "streams")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    path: bytes
    follow: bool
    streams: _guest_pb2.Stdio
    def __init__(self, container_id: _Optional[str] = ..., path: _Optional[bytes] = ..., follow: _Optional[bool] = ..., streams: _Optional[_Union[_guest_pb2.Stdio, _Mapping]] = ...) -> None: ...

class WriteRequest(_message.Message):
    __slots__ = ("container_id", "directory", "name", "streams")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    directory: bytes
    name: bytes
    streams: _guest_pb2.Stdio
    def __init__(self, container_id: _Optional[str] = ..., directory: _Optional[bytes] = ..., name: _Optional[bytes] = ..., streams: _Optional[_Union[_guest_pb2.Stdio, _Mapping]] = ...) -> None: ...

class CopyResponse(_message.Message):
    __slots__ = ("copy",)
    COPY_FIELD_NUMBER: _ClassVar[int]
    copy: int
    def __init__(self, copy: _Optional[int] = ...) -> None: ...

class FinishRequest(_message.Message):
    __slots__ = ("copy",)
    COPY_FIELD_NUMBER: _ClassVar[int]
    copy: int
    def __init__(self, copy: _Optional[int] = ...) -> None: ...

class FinishResponse(_message.Message):
    __slots__ = ("notes", "stopped")
    NOTES_FIELD_NUMBER: _ClassVar[int]
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    notes: _containers.RepeatedScalarFieldContainer[str]
    stopped: bool
    def __init__(self, notes: _Optional[_Iterable[str]] = ..., stopped: _Optional[bool] = ...) -> None: ...
