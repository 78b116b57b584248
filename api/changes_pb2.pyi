# mypy: disable-error-code="type-arg"
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListRequest(_message.Message):
    __slots__ = ("container_id", "page", "upon_earlier", "known_ns")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    UPON_EARLIER_FIELD_NUMBER: _ClassVar[int]
    KNOWN_NS_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    page: int
    upon_earlier: bool
    known_ns: int
    def __init__(self, container_id: _Optional[str] = ..., page: _Optional[int] = ..., upon_earlier: _Optional[bool] = ..., known_ns: _Optional[int] = ...) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ("entries", "last", "began_ns")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    BEGAN_NS_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    last: bool
    began_ns: int
    def __init__(self, entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ..., last: _Optional[bool] = ..., began_ns: _Optional[int] = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("name", "facts", "extents", "target", "xattrs", "opaque", "inline", "more", "needless", "brief")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    EXTENTS_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    XATTRS_FIELD_NUMBER: _ClassVar[int]
    OPAQUE_FIELD_NUMBER: _ClassVar[int]
    INLINE_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    NEEDLESS_FIELD_NUMBER: _ClassVar[int]
    BRIEF_FIELD_NUMBER: _ClassVar[int]
    name: bytes
    facts: bytes
    extents: bytes
    target: bytes
    xattrs: _containers.RepeatedCompositeFieldContainer[Xattr]
    opaque: bool
    inline: bytes
    more: bool
    needless: bool
    brief: bool
    def __init__(self, name: _Optional[bytes] = ..., facts: _Optional[bytes] = ..., extents: _Optional[bytes] = ..., target: _Optional[bytes] = ..., xattrs: _Optional[_Iterable[_Union[Xattr, _Mapping]]] = ..., opaque: _Optional[bool] = ..., inline: _Optional[bytes] = ..., more: _Optional[bool] = ..., needless: _Optional[bool] = ..., brief: _Optional[bool] = ...) -> None: ...

class Xattr(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: bytes
    value: bytes
    def __init__(self, name: _Optional[bytes] = ..., value: _Optional[bytes] = ...) -> None: ...
