"""The whole configuration, and the way to read it from a file and from OUSEL_* variables."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any, Literal, TypeVar, get_origin

from pydantic import ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from engine.config.events import EventsConfig
from engine.config.explained import explained
from engine.config.kafka import KafkaConfig
from engine.config.model import CanaryConfig, IndexConfig, InferenceConfig, ModelConfig
from engine.config.ranking import RankingConfig
from engine.config.section import ConfigError
from engine.config.serving import ServingConfig
from engine.config.snapshot import SnapshotConfig
from engine.config.state import StateConfig

T = TypeVar("T", bound="Settings")


class Settings(BaseSettings):
    """The part that the settings of every process share: where values come from, and how much is logged."""

    model_config = SettingsConfigDict(
        env_prefix="OUSEL_",
        env_nested_delimiter="__",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
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
        events = info.data.get("events")  # It is absent where it is wrong itself.
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
        raise ConfigError(explained(error, kind)) from None
    except SettingsError as error:
        raise ConfigError(_not_json(error, kind)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {str(path)!r} must be TOML in UTF-8: {error}") from None
    except OSError as error:
        raise ConfigError(f"--config {str(path)!r} can't be read: {error.strerror}") from None


def _not_json(error: SettingsError, kind: type[Settings]) -> str:
    """Names the variables that may be meant: pydantic names their section alone."""
    found = re.search(r'field "(\w+)"', str(error))
    section = found[1] if found else ""
    fields = getattr(kind.model_fields[section].annotation, "model_fields", {}) if section in kind.model_fields else {}
    tables = [name for name, field in fields.items() if get_origin(field.annotation) in (dict, tuple)]
    names = [f"OUSEL_{section}".upper(), *(f"OUSEL_{section}__{name}".upper() for name in tables)]
    given = [name for name in sorted(os.environ) if name.upper() in names and not _is_json(os.environ[name])]
    said = " and ".join(given or names[:1])
    return f'{section}: {said} must be JSON, a table {{"name": 1}} or a list [1, 2], and the value is not shown'


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
