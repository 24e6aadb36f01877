from google.protobuf import timestamp_pb2 as _timestamp_pb2
from ousel.v1 import event_pb2 as _event_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_STATE_UNSPECIFIED: _ClassVar[ModelState]
    MODEL_STATE_SERVING: _ClassVar[ModelState]
    MODEL_STATE_STORED: _ClassVar[ModelState]
    MODEL_STATE_WITHDRAWN: _ClassVar[ModelState]
    MODEL_STATE_ROLLED_BACK: _ClassVar[ModelState]

class ModelOrigin(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_ORIGIN_UNSPECIFIED: _ClassVar[ModelOrigin]
    MODEL_ORIGIN_NONE: _ClassVar[ModelOrigin]
    MODEL_ORIGIN_REGISTRY: _ClassVar[ModelOrigin]
    MODEL_ORIGIN_LOCAL_COPY: _ClassVar[ModelOrigin]
MODEL_STATE_UNSPECIFIED: ModelState
MODEL_STATE_SERVING: ModelState
MODEL_STATE_STORED: ModelState
MODEL_STATE_WITHDRAWN: ModelState
MODEL_STATE_ROLLED_BACK: ModelState
MODEL_ORIGIN_UNSPECIFIED: ModelOrigin
MODEL_ORIGIN_NONE: ModelOrigin
MODEL_ORIGIN_REGISTRY: ModelOrigin
MODEL_ORIGIN_LOCAL_COPY: ModelOrigin

class PushWeightsRequest(_message.Message):
    __slots__ = ("header", "chunk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header: WeightsHeader
    chunk: bytes
    def __init__(self, header: _Optional[_Union[WeightsHeader, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class WeightsHeader(_message.Message):
    __slots__ = ("version", "size_bytes", "sha256", "metrics", "trained_on", "pushed_by")
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
    TRAINED_ON_FIELD_NUMBER: _ClassVar[int]
    PUSHED_BY_FIELD_NUMBER: _ClassVar[int]
    version: int
    size_bytes: int
    sha256: bytes
    metrics: _containers.ScalarMap[str, float]
    trained_on: _containers.RepeatedCompositeFieldContainer[_event_pb2.LogPosition]
    pushed_by: str
    def __init__(self, version: _Optional[int] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[bytes] = ..., metrics: _Optional[_Mapping[str, float]] = ..., trained_on: _Optional[_Iterable[_Union[_event_pb2.LogPosition, _Mapping]]] = ..., pushed_by: _Optional[str] = ...) -> None: ...

class PushWeightsResponse(_message.Message):
    __slots__ = ("version", "swap_ms", "announced", "pinned_version")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SWAP_MS_FIELD_NUMBER: _ClassVar[int]
    ANNOUNCED_FIELD_NUMBER: _ClassVar[int]
    PINNED_VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    swap_ms: float
    announced: bool
    pinned_version: int
    def __init__(self, version: _Optional[int] = ..., swap_ms: _Optional[float] = ..., announced: bool = ..., pinned_version: _Optional[int] = ...) -> None: ...

class RollBackRequest(_message.Message):
    __slots__ = ("expected_version",)
    EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    expected_version: int
    def __init__(self, expected_version: _Optional[int] = ...) -> None: ...

class RollBackResponse(_message.Message):
    __slots__ = ("version", "swap_ms", "serving")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SWAP_MS_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    version: int
    swap_ms: float
    serving: bool
    def __init__(self, version: _Optional[int] = ..., swap_ms: _Optional[float] = ..., serving: bool = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "announced_version", "pinned_version", "newest_version", "serving_version", "serving", "building", "refused", "origin", "registry_problem", "dir", "topic")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    ANNOUNCED_VERSION_FIELD_NUMBER: _ClassVar[int]
    PINNED_VERSION_FIELD_NUMBER: _ClassVar[int]
    NEWEST_VERSION_FIELD_NUMBER: _ClassVar[int]
    SERVING_VERSION_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    BUILDING_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    REGISTRY_PROBLEM_FIELD_NUMBER: _ClassVar[int]
    DIR_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[RegisteredModel]
    announced_version: int
    pinned_version: int
    newest_version: int
    serving_version: int
    serving: bool
    building: ModelBuild
    refused: RefusedModel
    origin: ModelOrigin
    registry_problem: str
    dir: str
    topic: str
    def __init__(self, models: _Optional[_Iterable[_Union[RegisteredModel, _Mapping]]] = ..., announced_version: _Optional[int] = ..., pinned_version: _Optional[int] = ..., newest_version: _Optional[int] = ..., serving_version: _Optional[int] = ..., serving: bool = ..., building: _Optional[_Union[ModelBuild, _Mapping]] = ..., refused: _Optional[_Union[RefusedModel, _Mapping]] = ..., origin: _Optional[_Union[ModelOrigin, str]] = ..., registry_problem: _Optional[str] = ..., dir: _Optional[str] = ..., topic: _Optional[str] = ...) -> None: ...

class RegisteredModel(_message.Message):
    __slots__ = ("version", "sha256", "size_bytes", "metrics", "trained_on", "accepted", "pushed_by", "engine", "state", "reason")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    TRAINED_ON_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    PUSHED_BY_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    version: int
    sha256: bytes
    size_bytes: int
    metrics: _containers.ScalarMap[str, float]
    trained_on: _containers.RepeatedCompositeFieldContainer[_event_pb2.LogPosition]
    accepted: _timestamp_pb2.Timestamp
    pushed_by: str
    engine: str
    state: ModelState
    reason: str
    def __init__(self, version: _Optional[int] = ..., sha256: _Optional[bytes] = ..., size_bytes: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ..., trained_on: _Optional[_Iterable[_Union[_event_pb2.LogPosition, _Mapping]]] = ..., accepted: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., pushed_by: _Optional[str] = ..., engine: _Optional[str] = ..., state: _Optional[_Union[ModelState, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class ModelBuild(_message.Message):
    __slots__ = ("version", "progress", "seconds")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    version: int
    progress: float
    seconds: float
    def __init__(self, version: _Optional[int] = ..., progress: _Optional[float] = ..., seconds: _Optional[float] = ...) -> None: ...

class RefusedModel(_message.Message):
    __slots__ = ("version", "reason", "time")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    version: int
    reason: str
    time: _timestamp_pb2.Timestamp
    def __init__(self, version: _Optional[int] = ..., reason: _Optional[str] = ..., time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class PinModelRequest(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class PinModelResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class UnpinModelRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UnpinModelResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class PruneModelsRequest(_message.Message):
    __slots__ = ("keep",)
    KEEP_FIELD_NUMBER: _ClassVar[int]
    keep: int
    def __init__(self, keep: _Optional[int] = ...) -> None: ...

class PruneModelsResponse(_message.Message):
    __slots__ = ("versions",)
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, versions: _Optional[_Iterable[int]] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("serving", "model_version", "model_metrics", "model_versions", "users", "items", "index_items", "events_folded", "items_folded", "events_dead_lettered", "lag", "streams", "failed_calls", "reflects", "uptime_s", "partitions", "partitions_total", "users_limit", "users_evicted", "items_evicted", "users_forgotten", "events_duplicate", "records_redelivered", "snapshot_time", "targets", "targets_evicted", "building", "refused", "model_origin", "registry_problem")
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
    BUILDING_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    MODEL_ORIGIN_FIELD_NUMBER: _ClassVar[int]
    REGISTRY_PROBLEM_FIELD_NUMBER: _ClassVar[int]
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
    building: ModelBuild
    refused: RefusedModel
    model_origin: ModelOrigin
    registry_problem: str
    def __init__(self, serving: bool = ..., model_version: _Optional[int] = ..., model_metrics: _Optional[_Mapping[str, float]] = ..., model_versions: _Optional[_Iterable[int]] = ..., users: _Optional[int] = ..., items: _Optional[int] = ..., index_items: _Optional[int] = ..., events_folded: _Optional[int] = ..., items_folded: _Optional[int] = ..., events_dead_lettered: _Optional[int] = ..., lag: _Optional[int] = ..., streams: _Optional[int] = ..., failed_calls: _Optional[int] = ..., reflects: _Optional[_Iterable[_Union[_event_pb2.LogPosition, _Mapping]]] = ..., uptime_s: _Optional[float] = ..., partitions: _Optional[_Iterable[int]] = ..., partitions_total: _Optional[int] = ..., users_limit: _Optional[int] = ..., users_evicted: _Optional[int] = ..., items_evicted: _Optional[int] = ..., users_forgotten: _Optional[int] = ..., events_duplicate: _Optional[int] = ..., records_redelivered: _Optional[int] = ..., snapshot_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., targets: _Optional[int] = ..., targets_evicted: _Optional[int] = ..., building: _Optional[_Union[ModelBuild, _Mapping]] = ..., refused: _Optional[_Union[RefusedModel, _Mapping]] = ..., model_origin: _Optional[_Union[ModelOrigin, str]] = ..., registry_problem: _Optional[str] = ...) -> None: ...
