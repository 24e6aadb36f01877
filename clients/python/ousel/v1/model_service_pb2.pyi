from google.protobuf import timestamp_pb2 as _timestamp_pb2
from ousel.v1 import event_pb2 as _event_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PushWeightsRequest(_message.Message):
    __slots__ = ("header", "chunk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header: WeightsHeader
    chunk: bytes
    def __init__(self, header: _Optional[_Union[WeightsHeader, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class WeightsHeader(_message.Message):
    __slots__ = ("version", "size_bytes", "sha256", "metrics")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    version: int
    size_bytes: int
    sha256: bytes
    metrics: _containers.ScalarMap[str, float]
    def __init__(self, version: _Optional[int] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[bytes] = ..., metrics: _Optional[_Mapping[str, float]] = ...) -> None: ...

class PushWeightsResponse(_message.Message):
    __slots__ = ("version", "swap_ms")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SWAP_MS_FIELD_NUMBER: _ClassVar[int]
    version: int
    swap_ms: float
    def __init__(self, version: _Optional[int] = ..., swap_ms: _Optional[float] = ...) -> None: ...

class RollBackRequest(_message.Message):
    __slots__ = ("expected_version",)
    EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    expected_version: int
    def __init__(self, expected_version: _Optional[int] = ...) -> None: ...

class RollBackResponse(_message.Message):
    __slots__ = ("version", "swap_ms")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SWAP_MS_FIELD_NUMBER: _ClassVar[int]
    version: int
    swap_ms: float
    def __init__(self, version: _Optional[int] = ..., swap_ms: _Optional[float] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("serving", "model_version", "model_metrics", "model_versions", "users", "items", "index_items", "events_folded", "items_folded", "events_dead_lettered", "lag", "streams", "failed_calls", "reflects", "uptime_s", "partitions", "partitions_total", "users_limit", "users_evicted", "items_evicted", "users_forgotten", "events_duplicate", "records_redelivered", "snapshot_time", "targets", "targets_evicted")
    class ModelMetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    SERVING_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_METRICS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    INDEX_ITEMS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FOLDED_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FOLDED_FIELD_NUMBER: _ClassVar[int]
    EVENTS_DEAD_LETTERED_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    FAILED_CALLS_FIELD_NUMBER: _ClassVar[int]
    REFLECTS_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    USERS_LIMIT_FIELD_NUMBER: _ClassVar[int]
    USERS_EVICTED_FIELD_NUMBER: _ClassVar[int]
    ITEMS_EVICTED_FIELD_NUMBER: _ClassVar[int]
    USERS_FORGOTTEN_FIELD_NUMBER: _ClassVar[int]
    EVENTS_DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    RECORDS_REDELIVERED_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_TIME_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    TARGETS_EVICTED_FIELD_NUMBER: _ClassVar[int]
    serving: bool
    model_version: int
    model_metrics: _containers.ScalarMap[str, float]
    model_versions: _containers.RepeatedScalarFieldContainer[int]
    users: int
    items: int
    index_items: int
    events_folded: int
    items_folded: int
    events_dead_lettered: int
    lag: int
    streams: int
    failed_calls: int
    reflects: _containers.RepeatedCompositeFieldContainer[_event_pb2.LogPosition]
    uptime_s: float
    partitions: _containers.RepeatedScalarFieldContainer[int]
    partitions_total: int
    users_limit: int
    users_evicted: int
    items_evicted: int
    users_forgotten: int
    events_duplicate: int
    records_redelivered: int
    snapshot_time: _timestamp_pb2.Timestamp
    targets: int
    targets_evicted: int
    def __init__(self, serving: bool = ..., model_version: _Optional[int] = ..., model_metrics: _Optional[_Mapping[str, float]] = ..., model_versions: _Optional[_Iterable[int]] = ..., users: _Optional[int] = ..., items: _Optional[int] = ..., index_items: _Optional[int] = ..., events_folded: _Optional[int] = ..., items_folded: _Optional[int] = ..., events_dead_lettered: _Optional[int] = ..., lag: _Optional[int] = ..., streams: _Optional[int] = ..., failed_calls: _Optional[int] = ..., reflects: _Optional[_Iterable[_Union[_event_pb2.LogPosition, _Mapping]]] = ..., uptime_s: _Optional[float] = ..., partitions: _Optional[_Iterable[int]] = ..., partitions_total: _Optional[int] = ..., users_limit: _Optional[int] = ..., users_evicted: _Optional[int] = ..., items_evicted: _Optional[int] = ..., users_forgotten: _Optional[int] = ..., events_duplicate: _Optional[int] = ..., records_redelivered: _Optional[int] = ..., snapshot_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., targets: _Optional[int] = ..., targets_evicted: _Optional[int] = ...) -> None: ...
