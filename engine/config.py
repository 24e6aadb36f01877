"""The engine's configuration: one section per stage, from defaults, a TOML file and OUSEL_* variables.

`OUSEL_KAFKA__BOOTSTRAP=host:port` sets `kafka.bootstrap`; variables win over the file named by `--config`, which wins
over the defaults. Every field is checked here, at the edge; the rooms behind trust what they get.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

_HOUR_S = 3600.0
_DAY_S = 24 * _HOUR_S

T = TypeVar("T", bound="Settings")


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
    queue_batches: int = Field(8, ge=1, le=1024, description="batches polled ahead of the fold; full: polling waits")
    request_timeout_ms: int = Field(10_000, ge=100, description="how long one produce or fetch may take")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_cafile: Path | None = None


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
    max_id_bytes: int = Field(256, ge=8, le=4096, description="longest user, session, item or event id, in UTF-8")
    max_future_s: float = Field(_DAY_S, ge=0, description="how far ahead of its record an event's time may lie")

    @model_validator(mode="after")
    def _kinds_fit(self) -> EventsConfig:
        if not 1 <= len(self.kinds) <= 127:
            raise ValueError(f"kinds must be 1 to 127 names, got {len(self.kinds)}")
        if self.default_kind not in self.kinds:
            raise ValueError(f"default_kind must be one of {sorted(self.kinds)}, got {self.default_kind!r}")
        return self


class StateConfig(Section):
    """Sizes of what is remembered. Memory grows with users * history and items * neighbors."""

    history: int = Field(128, ge=2, le=4096, description="most recent events kept per user or anonymous session")
    neighbors: int = Field(16, ge=1, le=1024, description="most recent users, and most recent next items, per item")
    session_gap_s: float = Field(1800.0, gt=0, description="idle time that starts a new session where none is named")
    half_life_s: float = Field(7 * _DAY_S, gt=0, description="decayed popularity halves in this event time")
    popular: int = Field(1000, ge=1000, le=100_000, description="length of the ready list; a page may ask for 1,000")
    features_dim: int = Field(0, ge=0, le=4096, description="length of Item.features; 0: the field must be empty")
    content_dim: int = Field(128, ge=8, le=4096, description="hashed categories and title words, per item")


class ModelConfig(Section):
    """How inference runs. The shape of the model itself travels with its weights."""

    threads: int = Field(1, ge=1, le=256, description="intra-op threads; on few cores 1 is steadier and no slower")
    max_weights_bytes: int = Field(2**30, ge=2**10, description="largest pushed file that is accepted")


class InferenceConfig(Section):
    """How far and how fast a moved embedding spreads."""

    epsilon: float = Field(0.1, ge=0, le=2, description="a user whose vector moved less (L2) does not touch its items")
    spread_rows: int = Field(
        32, ge=0, description="items recomputed in a step because a neighbor moved; the rest waits"
    )
    chunk_rows: int = Field(4096, ge=1, description="rows in one forward; bounds its memory")


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


class RankingConfig(Section):
    """How many candidates each source proposes for one list."""

    index_candidates: int = Field(200, ge=1, le=10_000)
    popular_candidates: int = Field(50, ge=1, le=10_000)
    neighbor_sources: int = Field(5, ge=0, le=64, description="last items whose next items are proposed")
    max_k: int = Field(1000, ge=1, le=1000)


class ServingConfig(Section):
    """Where the server listens, and how much it takes on."""

    host: str = Field("127.0.0.1", description="loopback unless told otherwise")
    port: int = Field(50051, ge=0, le=65535, description="gRPC; 0 takes a free one and says which")
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(9464, ge=0, le=65535, description="Prometheus /metrics; 0 takes a free one")
    max_streams: int = Field(10_000, ge=1, description="open subscriptions; one more is refused")
    max_queries: int = Field(10_000, ge=1, description="calls waiting for a list; one more is refused")
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
    model: ModelConfig = ModelConfig()
    inference: InferenceConfig = InferenceConfig()
    index: IndexConfig = IndexConfig()
    ranking: RankingConfig = RankingConfig()
    serving: ServingConfig = ServingConfig()


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
