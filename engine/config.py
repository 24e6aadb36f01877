"""The engine's configuration: one section per stage, from defaults, a TOML file and OUSEL_* variables.

`OUSEL_KAFKA__BOOTSTRAP=host:port` sets `kafka.bootstrap`; variables win over the file named by `--config`, which wins
over the defaults. Every field is checked here, at the edge; the rooms behind trust what they get.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

_HOUR_S = 3600.0
_DAY_S = 24 * _HOUR_S

T = TypeVar("T", bound="Settings")

Precision = Literal["float32", "bfloat16", "int8"]
Device = Annotated[str, Field(pattern=r"^(cpu|cuda(:\d{1,3})?)$")]


class ConfigError(ValueError):
    """A setting is missing, unknown or out of range; the message names it, its value and what is allowed."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaConfig(Section):
    """Where the log is. The same section serves the engine, the trainer and EventService."""

    bootstrap: str = Field("127.0.0.1:9092", min_length=3, description="host:port[,host:port] of the brokers")
    events_topic: str = "ousel.events"
    items_topic: str = "ousel.items"
    dead_letters_topic: str = "ousel.dead-letters"
    events_partitions: int = Field(4, ge=1, le=1024, description="partitions of the events topic where we create it")
    replication_factor: int = Field(1, ge=1, le=15, description="of topics that we create")
    max_poll_records: int = Field(4096, ge=1, le=65536, description="records in one batch; bounds a step's memory")
    queue_batches: int = Field(
        8,
        ge=1,
        le=1024,
        description="full batches polled ahead of the fold, in however many small ones; then polling waits",
    )
    request_timeout_ms: int = Field(10_000, ge=100, description="how long one produce or fetch may take")
    group_id: str = Field(
        "ousel-engine", min_length=1, description="consumer group: where positions are noted, and who shares partitions"
    )
    share: bool = Field(
        False, description="engines of one group share the events topic's partitions; false: each reads all of them"
    )
    session_timeout_ms: int = Field(
        10_000, ge=1000, le=1_800_000, description="an engine silent for longer loses its partitions to the group"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="with SASL_*: also sasl_username and sasl_password"
    )
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_cafile: Path | None = Field(None, description="PEM file of the authorities to trust; none: the system's")
    ssl_certfile: Path | None = Field(None, description="PEM file of the client's certificate, where brokers want one")
    ssl_keyfile: Path | None = Field(None, description="PEM file of its key, where that is not in ssl_certfile")
    ssl_check_hostname: bool = Field(True, description="the broker's certificate must be for its name")

    # Below what it is checked with, and checked itself, so that no message shows the password.
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", validate_default=True
    )

    @field_validator("ssl_cafile", "ssl_certfile", "ssl_keyfile")
    @classmethod
    def _readable(cls, path: Path | None) -> Path | None:
        if path is not None and not (path.is_file() and os.access(path, os.R_OK)):
            raise ValueError("must name a file that can be read")
        return path

    @field_validator("security_protocol")
    @classmethod
    def _has_what_it_needs(cls, protocol: str, info: ValidationInfo) -> str:
        sasl = {name: info.data.get(name, "wrong") for name in ("sasl_mechanism", "sasl_username", "sasl_password")}
        tls = {name: info.data.get(name, "wrong") for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile")}
        if protocol.startswith("SASL"):
            missing = [name for name, value in sasl.items() if not value]
            if missing:
                mechanisms = "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
                raise ValueError(f"{protocol} needs {' and '.join(sasl)} ({mechanisms}), {missing[0]} is not set")
        elif any(sasl.values()):
            given = next(name for name, value in sasl.items() if value)
            raise ValueError(f"must be SASL_PLAINTEXT or SASL_SSL where {given} is set")
        if any(tls.values()) and not protocol.endswith("SSL"):
            given = next(name for name, value in tls.items() if value)
            raise ValueError(f"must be SSL or SASL_SSL where {given} is set")
        if tls["ssl_keyfile"] and not tls["ssl_certfile"]:
            raise ValueError("needs ssl_certfile where ssl_keyfile is set")
        return protocol


class EventsConfig(Section):
    """What an event may say. Whatever breaks a rule goes to the dead-letter topic with the reason."""

    kinds: dict[str, float] = Field(
        default={
            "view": 1.0,
            "click": 1.0,
            "play": 1.0,
            "cart": 2.0,
            "like": 2.0,
            "rate": 2.0,
            "share": 2.0,
            "purchase": 3.0,
        },
        description="known kinds and the weight of each in decayed popularity; the order numbers them, so append only",
    )
    default_kind: str = "view"
    relations: dict[str, float] = Field(
        default={"follows": 1.0, "friend": 2.0, "has": 1.0},
        description="known relations of users and of items, and how much each weighs where candidates are proposed,"
        " 0: it proposes none; the order numbers them, so append only",
    )
    default_user_relation: str = Field("follows", description="of an event with target_user_id that names no kind")
    default_item_relation: str = Field("has", description="of an event with entity_id that names no kind")
    max_id_bytes: int = Field(256, ge=8, le=4096, description="longest user, session, item or event id, in UTF-8")
    max_future_s: float = Field(_DAY_S, ge=0, description="how far ahead of its record an event's time may lie")

    @model_validator(mode="after")
    def _kinds_fit(self) -> EventsConfig:
        if not 1 <= len(self.kinds) <= 127:
            raise ValueError(f"kinds must be 1 to 127 names, got {len(self.kinds)}")
        if self.default_kind not in self.kinds:
            raise ValueError(f"default_kind must be one of {sorted(self.kinds)}, got {self.default_kind!r}")
        if not 1 <= len(self.relations) <= 127:
            raise ValueError(f"relations must be 1 to 127 names, got {len(self.relations)}")
        for name in ("default_user_relation", "default_item_relation"):
            if getattr(self, name) not in self.relations:
                raise ValueError(f"{name} must be one of {sorted(self.relations)}, got {getattr(self, name)!r}")
        return self


class StateConfig(Section):
    """Sizes of what is remembered. Memory follows the events there are, up to these limits."""

    max_users: int = Field(
        1_000_000, ge=1, le=2**30,
        description="users and anonymous sessions, in equal parts for the partitions of the events topic;"
        " beyond that the longest idle of a partition are forgotten",
    )  # fmt: skip
    max_items: int = Field(
        200_000, ge=1, le=2**30,
        description="items that events of one partition have named, and items in the catalog;"
        " beyond that the longest idle, or the longest not updated, are forgotten",
    )  # fmt: skip

    history: int = Field(128, ge=2, le=4096, description="most recent events kept per user or anonymous session")
    neighbors: int = Field(16, ge=1, le=1024, description="most recent users, and most recent next items, per item")
    relations: int = Field(32, ge=1, le=256, description="latest relations kept per user, per item, and per entity")
    max_targets: int = Field(
        200_000, ge=1, le=2**30,
        description="users and entities that relations of one partition lead to;"
        " beyond that the longest not named are forgotten",
    )  # fmt: skip
    session_gap_s: float = Field(1800.0, gt=0, description="idle time that starts a new session where none is named")
    half_lives_s: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (7 * _DAY_S, _DAY_S, _HOUR_S), min_length=1, max_length=8,
        description="decayed popularity halves in this event time; the first one orders the ready list",
    )  # fmt: skip
    popular: int = Field(1000, ge=1000, le=100_000, description="length of the ready list; a page may ask for 1,000")
    duplicates_window: int = Field(
        65_536, ge=0, le=2**24,
        description="event ids remembered per partition, to fold a producer's repeat once; 0: none",
    )  # fmt: skip
    features_dim: int = Field(0, ge=0, le=4096, description="length of Item.features; 0: the field must be empty")
    content_dim: int = Field(
        128, ge=8, le=4096, description="width of what is made of an item's categories and title; a model gives its own"
    )
    content_encoder: Literal["hashed", "sentence-transformer"] = Field(
        "hashed", description="hashed words cost nothing; a model (extra `text`) knows what they mean, item by item"
    )
    content_model: str | None = Field(
        None, description="name or folder of the sentence-transformer, where content_encoder is that"
    )

    @model_validator(mode="after")
    def _model_where_one_is_needed(self) -> StateConfig:
        if (self.content_encoder == "sentence-transformer") != (self.content_model is not None):
            raise ValueError(
                "content_model must be set where content_encoder is sentence-transformer, and only there,"
                f" got {self.content_model!r} and {self.content_encoder!r}"
            )
        return self


class SnapshotConfig(Section):
    """Where the state is saved, so that a restart need not read the whole log again."""

    dir: Path | None = Field(
        None, description="folder of the snapshots; none: every start reads the log from its begin"
    )
    engine: str | None = Field(
        None, description="name of this engine in that folder, its own and lasting; none: host name and serving.port"
    )
    interval_s: float = Field(60.0, gt=0, description="from the end of one snapshot to the start of the next")
    keep: int = Field(3, ge=1, le=1000, description="newest snapshots of this engine that are kept")
    piece_bytes: int = Field(
        4 * 2**20, ge=4096, description="copied per step while a snapshot is taken; more ends sooner, and pauses longer"
    )


class ModelConfig(Section):
    """How inference runs. The shape of the model itself travels with its weights."""

    threads: int = Field(1, ge=1, le=256, description="intra-op threads; on few cores 1 is steadier and no slower")
    max_weights_bytes: int = Field(2**30, ge=2**10, description="largest pushed file that is accepted")
    build_share: float = Field(
        0.5, gt=0, le=1, description="of a core, and of the engine's thread, that a push takes; more swaps sooner"
    )
    build_nice: int = Field(
        0, ge=0, le=19,
        description="lowers the priority of the thread that builds (Linux); a busy machine may then stop it while it"
        " holds what lists need",
    )  # fmt: skip


class CanaryConfig(Section):
    """What a pushed model must show beside the serving one before it serves."""

    users: int = Field(
        200, ge=0, le=10_000, description="recent users whose newest event both are asked for; 0: neither is"
    )
    min_hit_rate_share: float = Field(
        0.5, ge=0, le=1, description="of the serving model's hits, where it has 20 or more; 0: any"
    )
    min_overlap: float = Field(0.0, ge=0, le=1, description="share of items that the lists of both have; 0: any")


class InferenceConfig(Section):
    """How far and how fast a moved embedding spreads."""

    epsilon: float = Field(0.1, ge=0, le=2, description="a user whose vector moved less (L2) does not touch its items")
    spread_rows: int = Field(32, ge=0, description="rows recomputed in a step because a neighbor moved; the rest waits")
    chunk_rows: int = Field(4096, ge=1, description="rows in one forward; bounds its memory")
    device: Device = Field("cpu", description="cpu, cuda or cuda:N: where all items and users are embedded for a model")
    precision: Precision = Field(
        "float32",
        description="of the session encoder's products; less pays from a width of about 256 on",
    )
    sessions: int = Field(
        2048, ge=0, le=2**24,
        description="sessions whose keys and values are kept from one list to the next, the longest not asked for"
        " evicted first; about 65 kB each at the default shape; 0: each list computes its session anew",
    )  # fmt: skip
    queries: int = Field(
        131_072, ge=0, le=2**24,
        description="sessions whose query is kept until they have a new event, so that a list without one encodes"
        " nothing; 64 floats each, at the model's width of 64; 0: each list encodes its session",
    )  # fmt: skip


class IndexConfig(Section):
    """The HNSW graph, and when it is built anew."""

    m: int = Field(16, ge=2, le=128, description="HNSW links per element")
    ef_construction: int = Field(100, ge=8, le=2000)
    ef_search: int = Field(200, ge=8, le=10_000)
    epsilon: float = Field(
        0.05, ge=0, le=2, description="a vector that moved more (L2) since the build is searched exactly"
    )
    max_delta: float = Field(0.15, gt=0, le=1, description="share of items in the exact delta that starts a rebuild")
    rebuild_threads: int = Field(1, ge=1, le=64)
    scan_below: int = Field(
        0, ge=0, description="a catalog of fewer items is scanned, which costs less up to about 10,000; 0: HNSW for all"
    )
    probe_queries: int = Field(
        100, ge=0, description="one search in so many is compared with an exact one, as a metric; 0: none"
    )
    probe_interval_s: float = Field(
        1.0, ge=0, description="at least this long between two of them; large catalogs wait longer"
    )


class RankingConfig(Section):
    """How many candidates each source proposes for one list."""

    index_candidates: int = Field(200, ge=1, le=10_000)
    popular_candidates: int = Field(50, ge=1, le=10_000)
    neighbor_sources: int = Field(
        5, ge=0, le=64, description="last items whose next items, and items with the same entities, are proposed"
    )
    friend_candidates: int = Field(
        50, ge=0, le=1000, description="latest items of users that the user is related to; 0: none"
    )
    entity_candidates: int = Field(
        50, ge=0, le=1000, description="items that share an entity with the last items; 0: none"
    )
    goal: str | None = Field(
        None, description="kind of event whose items lists are for; none: any. The model must be trained by_kind"
    )
    max_k: int = Field(1000, ge=1, le=1000)


class ServingConfig(Section):
    """Where the server listens, and how much it takes on."""

    host: str = Field("127.0.0.1", description="loopback unless told otherwise")
    port: int = Field(50051, ge=0, le=65535, description="gRPC; 0 takes a free one and says which")
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(9464, ge=0, le=65535, description="Prometheus /metrics; 0 takes a free one")
    max_streams: int = Field(10_000, ge=1, description="open subscriptions; one more is refused")
    max_queries: int = Field(10_000, ge=1, description="calls waiting for a list; one more is refused")
    max_wait_ms: float = Field(
        250.0, gt=0, description="calls that would wait longer for their list, as lists cost now, are refused"
    )
    max_batch: int = Field(64, ge=1, le=4096, description="lists computed in one forward")
    grace_s: float = Field(2.0, ge=0, description="how long open calls may finish at shutdown")


class Settings(BaseSettings):
    """What the settings of every process share: where values come from, and how much is logged."""

    model_config = SettingsConfigDict(
        env_prefix="OUSEL_",
        env_nested_delimiter="__",
        extra="ignore",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value


class Config(Settings):
    """All of the engine's. `load_config` is the way to get one."""

    kafka: KafkaConfig = KafkaConfig()
    events: EventsConfig = EventsConfig()
    state: StateConfig = StateConfig()
    snapshot: SnapshotConfig = SnapshotConfig()
    model: ModelConfig = ModelConfig()
    canary: CanaryConfig = CanaryConfig()
    inference: InferenceConfig = InferenceConfig()
    index: IndexConfig = IndexConfig()
    ranking: RankingConfig = RankingConfig()
    serving: ServingConfig = ServingConfig()

    # Of the one section, so that a message shows no other's values.
    @field_validator("ranking")
    @classmethod
    def _goal_is_a_kind(cls, ranking: RankingConfig, info: ValidationInfo) -> RankingConfig:
        events = info.data.get("events")  # none where it is wrong itself
        if ranking.goal is not None and events is not None and ranking.goal not in events.kinds:
            raise ValueError(f"goal must be one of {sorted(events.kinds)} (events.kinds), got {ranking.goal!r}")
        return ranking


def load_config(path: Path | None = None) -> Config:
    """Reads the configuration.

    Args:
        path: a TOML file with a table per section, or None for defaults and variables alone.

    Raises:
        ConfigError: names every setting that is wrong, its value and what is allowed.
    """
    return load_settings(Config, path)


def load_settings(kind: type[T], path: Path | None) -> T:
    """`load_config` for any settings class: the trainer's own uses it too."""
    if path is not None and not path.is_file():
        raise ConfigError(f"--config must name a file, got {str(path)!r}")

    class WithFile(kind):  # type: ignore[valid-type, misc]
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], env_settings: PydanticBaseSettingsSource, **_: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (env_settings, TomlConfigSettingsSource(settings_cls, path)) if path else (env_settings,)

    try:
        return WithFile()
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e['input']!r}" for e in error.errors()]
        raise ConfigError("; ".join(lines)) from None
