from ousel.v1 import event_pb2 as _event_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetDigestRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetDigestResponse(_message.Message):
    __slots__ = ("partitions", "catalog_digest", "catalog_reflects")
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    CATALOG_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CATALOG_REFLECTS_FIELD_NUMBER: _ClassVar[int]
    partitions: _containers.RepeatedCompositeFieldContainer[PartitionDigest]
    catalog_digest: str
    catalog_reflects: _containers.RepeatedCompositeFieldContainer[_event_pb2.LogPosition]
    def __init__(self, partitions: _Optional[_Iterable[_Union[PartitionDigest, _Mapping]]] = ..., catalog_digest: _Optional[str] = ..., catalog_reflects: _Optional[_Iterable[_Union[_event_pb2.LogPosition, _Mapping]]] = ...) -> None: ...

class PartitionDigest(_message.Message):
    __slots__ = ("digest", "reflects", "events_folded")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    REFLECTS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FOLDED_FIELD_NUMBER: _ClassVar[int]
    digest: str
    reflects: _event_pb2.LogPosition
    events_folded: int
    def __init__(self, digest: _Optional[str] = ..., reflects: _Optional[_Union[_event_pb2.LogPosition, _Mapping]] = ..., events_folded: _Optional[int] = ...) -> None: ...

class TakeSnapshotRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TakeSnapshotResponse(_message.Message):
    __slots__ = ("reflects",)
    REFLECTS_FIELD_NUMBER: _ClassVar[int]
    reflects: _containers.RepeatedCompositeFieldContainer[_event_pb2.LogPosition]
    def __init__(self, reflects: _Optional[_Iterable[_Union[_event_pb2.LogPosition, _Mapping]]] = ...) -> None: ...
