"""The whole configuration, and the way to read it from a file and from OUSEL_* variables."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from engine.config.events import EventsConfig
from engine.config.kafka import KafkaConfig
from engine.config.model import CanaryConfig, IndexConfig, InferenceConfig, ModelConfig
from engine.config.ranking import RankingConfig
from engine.config.section import ConfigError
from engine.config.serving import ServingConfig
from engine.config.snapshot import SnapshotConfig
from engine.config.state import StateConfig

T = TypeVar("T", bound="Settings")


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
