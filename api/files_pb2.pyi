# mypy: disable-error-code="type-arg"
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

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
    __slots__ = ("container_id", "path", "follow", "descriptor")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTOR_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    path: bytes
    follow: bool
    descriptor: int
    def __init__(self, container_id: _Optional[str] = ..., path: _Optional[bytes] = ..., follow: _Optional[bool] = ..., descriptor: _Optional[int] = ...) -> None: ...

class WriteRequest(_message.Message):
    __slots__ = ("container_id", "directory", "name", "descriptor")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTOR_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    directory: bytes
    name: bytes
    descriptor: int
    def __init__(self, container_id: _Optional[str] = ..., directory: _Optional[bytes] = ..., name: _Optional[bytes] = ..., descriptor: _Optional[int] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("done", "notes")
    DONE_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    done: bool
    notes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, done: _Optional[bool] = ..., notes: _Optional[_Iterable[str]] = ...) -> None: ...
