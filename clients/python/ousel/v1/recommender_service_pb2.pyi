from google.protobuf import duration_pb2 as _duration_pb2
from ousel.v1 import event_pb2 as _event_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Cause(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CAUSE_UNSPECIFIED: _ClassVar[Cause]
    CAUSE_SUBSCRIBED: _ClassVar[Cause]
    CAUSE_EVENTS: _ClassVar[Cause]
    CAUSE_MODEL: _ClassVar[Cause]
    CAUSE_CATALOG: _ClassVar[Cause]

class Origin(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ORIGIN_UNSPECIFIED: _ClassVar[Origin]
    ORIGIN_MODEL: _ClassVar[Origin]
    ORIGIN_POPULARITY: _ClassVar[Origin]
    ORIGIN_COVISITATION: _ClassVar[Origin]
    ORIGIN_FREQUENCY: _ClassVar[Origin]

class Source(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SOURCE_UNSPECIFIED: _ClassVar[Source]
    SOURCE_INDEX: _ClassVar[Source]
    SOURCE_HISTORY: _ClassVar[Source]
    SOURCE_NEIGHBOR: _ClassVar[Source]
    SOURCE_POPULAR: _ClassVar[Source]
    SOURCE_FRIEND: _ClassVar[Source]
    SOURCE_ENTITY: _ClassVar[Source]
    SOURCE_BACKFILL: _ClassVar[Source]
CAUSE_UNSPECIFIED: Cause
CAUSE_SUBSCRIBED: Cause
CAUSE_EVENTS: Cause
CAUSE_MODEL: Cause
CAUSE_CATALOG: Cause
ORIGIN_UNSPECIFIED: Origin
ORIGIN_MODEL: Origin
ORIGIN_POPULARITY: Origin
ORIGIN_COVISITATION: Origin
ORIGIN_FREQUENCY: Origin
SOURCE_UNSPECIFIED: Source
SOURCE_INDEX: Source
SOURCE_HISTORY: Source
SOURCE_NEIGHBOR: Source
SOURCE_POPULAR: Source
SOURCE_FRIEND: Source
SOURCE_ENTITY: Source
SOURCE_BACKFILL: Source

class Query(_message.Message):
    __slots__ = ("user_id", "session_id", "k", "options")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    session_id: str
    k: int
    options: QueryOptions
    def __init__(self, user_id: _Optional[str] = ..., session_id: _Optional[str] = ..., k: _Optional[int] = ..., options: _Optional[_Union[QueryOptions, _Mapping]] = ...) -> None: ...

class QueryOptions(_message.Message):
    __slots__ = ("exclude_history", "categories", "exclude_item_ids")
    EXCLUDE_HISTORY_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    exclude_history: bool
    categories: _containers.RepeatedScalarFieldContainer[str]
    exclude_item_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, exclude_history: bool = ..., categories: _Optional[_Iterable[str]] = ..., exclude_item_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class RecommendRequest(_message.Message):
    __slots__ = ("query", "after")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    query: Query
    after: _event_pb2.LogPosition
    def __init__(self, query: _Optional[_Union[Query, _Mapping]] = ..., after: _Optional[_Union[_event_pb2.LogPosition, _Mapping]] = ...) -> None: ...

class RecommendResponse(_message.Message):
    __slots__ = ("list",)
    LIST_FIELD_NUMBER: _ClassVar[int]
    list: RecommendationList
    def __init__(self, list: _Optional[_Union[RecommendationList, _Mapping]] = ...) -> None: ...

class RecommendBatchRequest(_message.Message):
    __slots__ = ("queries",)
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    queries: _containers.RepeatedCompositeFieldContainer[Query]
    def __init__(self, queries: _Optional[_Iterable[_Union[Query, _Mapping]]] = ...) -> None: ...

class RecommendBatchResponse(_message.Message):
    __slots__ = ("answers",)
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[BatchAnswer]
    def __init__(self, answers: _Optional[_Iterable[_Union[BatchAnswer, _Mapping]]] = ...) -> None: ...

class BatchAnswer(_message.Message):
    __slots__ = ("list", "refusal")
    LIST_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    list: RecommendationList
    refusal: Refusal
    def __init__(self, list: _Optional[_Union[RecommendationList, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("code", "message", "reason", "field", "retry_after")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    reason: str
    field: str
    retry_after: _duration_pb2.Duration
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., reason: _Optional[str] = ..., field: _Optional[str] = ..., retry_after: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class StreamRecommendationsRequest(_message.Message):
    __slots__ = ("subscribe", "event")
    SUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    subscribe: Query
    event: _event_pb2.Event
    def __init__(self, subscribe: _Optional[_Union[Query, _Mapping]] = ..., event: _Optional[_Union[_event_pb2.Event, _Mapping]] = ...) -> None: ...

class StreamRecommendationsResponse(_message.Message):
    __slots__ = ("list", "cause")
    LIST_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    list: RecommendationList
    cause: Cause
    def __init__(self, list: _Optional[_Union[RecommendationList, _Mapping]] = ..., cause: _Optional[_Union[Cause, str]] = ...) -> None: ...

class Recommendation(_message.Message):
    __slots__ = ("item_id", "title", "score", "sources")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    title: str
    score: float
    sources: _containers.RepeatedScalarFieldContainer[Source]
    def __init__(self, item_id: _Optional[str] = ..., title: _Optional[str] = ..., score: _Optional[float] = ..., sources: _Optional[_Iterable[_Union[Source, str]]] = ...) -> None: ...

class RecommendationList(_message.Message):
    __slots__ = ("items", "origin", "known", "model_version", "reflects")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    REFLECTS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Recommendation]
    origin: Origin
    known: bool
    model_version: int
    reflects: _containers.RepeatedCompositeFieldContainer[_event_pb2.LogPosition]
    def __init__(self, items: _Optional[_Iterable[_Union[Recommendation, _Mapping]]] = ..., origin: _Optional[_Union[Origin, str]] = ..., known: bool = ..., model_version: _Optional[int] = ..., reflects: _Optional[_Iterable[_Union[_event_pb2.LogPosition, _Mapping]]] = ...) -> None: ...
