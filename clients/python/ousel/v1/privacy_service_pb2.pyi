from google.protobuf import timestamp_pb2 as _timestamp_pb2
from ousel.v1 import event_pb2 as _event_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ForgetUserRequest(_message.Message):
    __slots__ = ("user_id", "session_id")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    session_id: str
    def __init__(self, user_id: _Optional[str] = ..., session_id: _Optional[str] = ...) -> None: ...

class ForgetUserResponse(_message.Message):
    __slots__ = ("subjects", "positions", "partitions")
    SUBJECTS_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    subjects: _containers.RepeatedCompositeFieldContainer[Subject]
    positions: _containers.RepeatedCompositeFieldContainer[_event_pb2.LogPosition]
    partitions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, subjects: _Optional[_Iterable[_Union[Subject, _Mapping]]] = ..., positions: _Optional[_Iterable[_Union[_event_pb2.LogPosition, _Mapping]]] = ..., partitions: _Optional[_Iterable[int]] = ...) -> None: ...

class Subject(_message.Message):
    __slots__ = ("user_id", "session_id")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    session_id: str
    def __init__(self, user_id: _Optional[str] = ..., session_id: _Optional[str] = ...) -> None: ...

class ExportUserRequest(_message.Message):
    __slots__ = ("user_id", "session_id")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    session_id: str
    def __init__(self, user_id: _Optional[str] = ..., session_id: _Optional[str] = ...) -> None: ...

class ExportUserResponse(_message.Message):
    __slots__ = ("known", "subjects", "partitions")
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    SUBJECTS_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    known: bool
    subjects: _containers.RepeatedCompositeFieldContainer[HeldSubject]
    partitions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, known: bool = ..., subjects: _Optional[_Iterable[_Union[HeldSubject, _Mapping]]] = ..., partitions: _Optional[_Iterable[int]] = ...) -> None: ...

class HeldSubject(_message.Message):
    __slots__ = ("partition", "session_id", "history", "sessions", "named_by_item_ids", "relations", "named_by_users")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    NAMED_BY_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    RELATIONS_FIELD_NUMBER: _ClassVar[int]
    NAMED_BY_USERS_FIELD_NUMBER: _ClassVar[int]
    partition: int
    session_id: str
    history: _containers.RepeatedCompositeFieldContainer[RememberedEvent]
    sessions: int
    named_by_item_ids: _containers.RepeatedScalarFieldContainer[str]
    relations: _containers.RepeatedCompositeFieldContainer[RememberedRelation]
    named_by_users: int
    def __init__(self, partition: _Optional[int] = ..., session_id: _Optional[str] = ..., history: _Optional[_Iterable[_Union[RememberedEvent, _Mapping]]] = ..., sessions: _Optional[int] = ..., named_by_item_ids: _Optional[_Iterable[str]] = ..., relations: _Optional[_Iterable[_Union[RememberedRelation, _Mapping]]] = ..., named_by_users: _Optional[int] = ...) -> None: ...

class RememberedRelation(_message.Message):
    __slots__ = ("user_id", "kind", "time", "value")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    kind: str
    time: _timestamp_pb2.Timestamp
    value: float
    def __init__(self, user_id: _Optional[str] = ..., kind: _Optional[str] = ..., time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., value: _Optional[float] = ...) -> None: ...

class RememberedEvent(_message.Message):
    __slots__ = ("item_id", "kind", "time", "value", "session")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    kind: str
    time: _timestamp_pb2.Timestamp
    value: float
    session: int
    def __init__(self, item_id: _Optional[str] = ..., kind: _Optional[str] = ..., time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., value: _Optional[float] = ..., session: _Optional[int] = ...) -> None: ...
