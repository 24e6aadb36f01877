"""The whole configuration, and the way to read it from a file and from OUSEL_* variables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from engine.config.clients import ClientsConfig
from engine.config.events import EventsConfig
from engine.config.explained import explained
from engine.config.given import Given
from engine.config.kafka import KafkaConfig
from engine.config.log import LogConfig
from engine.config.model import CanaryConfig, IndexConfig, InferenceConfig, ModelConfig
from engine.config.names import KnownNames
from engine.config.places import Places
from engine.config.quality import QualityConfig
from engine.config.ranking import RankingConfig
from engine.config.registry import RegistryConfig, models_topic
from engine.config.section import ConfigError
from engine.config.security import SecurityConfig
from engine.config.serving import ServingConfig
from engine.config.snapshot import SnapshotConfig
from engine.config.state import StateConfig
from engine.config.tls import TlsConfig
from engine.config.toml_file import TomlFile, read_toml
from engine.config.traces import TracesConfig
from engine.config.variables import DELIMITER, PREFIX, Variables
from engine.log_output import one_line

T = TypeVar("T", bound="Settings")


class Settings(BaseSettings):
    """The part that the settings of every process share: where values come from, and what is logged."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=DELIMITER,
        extra="ignore",  # The names are checked before, and the sections of other programs are passed over.
        frozen=True,
        hide_input_in_errors=True,
        nested_model_default_partial_update=True,
    )

    log: LogConfig = LogConfig()


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
    tls: TlsConfig = TlsConfig()
    registry: RegistryConfig = RegistryConfig()
    serving: ServingConfig = ServingConfig()
    quality: QualityConfig = QualityConfig()
    security: SecurityConfig = SecurityConfig()
    clients: ClientsConfig = ClientsConfig()
    traces: TracesConfig = TracesConfig()

    # Of the one section, so that a message shows no other's values.
    @field_validator("ranking")
    @classmethod
    def _goal_is_a_kind(cls, ranking: RankingConfig, info: ValidationInfo) -> RankingConfig:
        events = info.data.get("events")  # It is absent where it is wrong itself.
        if ranking.goal is not None and events is not None and ranking.goal not in events.kinds:
            raise ValueError(f"goal must be one of {sorted(events.kinds)} (events.kinds), got {ranking.goal!r}")
        return ranking

    @field_validator("serving")
    @classmethod
    def _metrics_have_a_certificate(cls, serving: ServingConfig, info: ValidationInfo) -> ServingConfig:
        tls = info.data.get("tls")
        if serving.metrics_tls and tls is not None and tls.certificate is None:
            raise ValueError("metrics_tls needs tls.certificate and tls.key")
        return serving

    @field_validator("registry")
    @classmethod
    def _topic_is_its_own(cls, registry: RegistryConfig, info: ValidationInfo) -> RegistryConfig:
        kafka = info.data.get("kafka")
        if kafka is not None:
            topic = models_topic(registry, kafka)
            for other in ("events_topic", "items_topic", "dead_letters_topic"):
                if getattr(kafka, other) == topic:
                    raise ValueError(f"topic must differ from kafka.{other}, got {topic!r}")
        return registry


def load_config(path: Path | None = None) -> Config:
    """Reads the configuration.

    Args:
        path: a TOML file with a table per section, or None for defaults and variables alone.

    Raises:
        ConfigError: names every setting that is wrong, its value and what is allowed.
    """
    return load_settings(Config, path)


def load_settings(kind: type[T], path: Path | None, given: Sequence[str] = ()) -> T:
    """`load_config` for any settings class: the trainer's own uses it too.

    Args:
        given: settings of the command line, each as SECTION.NAME=VALUE.
    """
    return load_with_places(kind, path, given)[0]


def load_with_places(kind: type[T], path: Path | None, given: Sequence[str] = ()) -> tuple[T, Places]:
    """`load_settings`, and where each value comes from."""
    known = KnownNames.of(kind, Config)
    file = None if path is None else read_toml(path)
    variables, flags = Variables(known), Given(given, known)
    places = Places(known, file, variables, flags)
    problems = [
        *flags.problems,
        *(f"{place}: {name}: {problem}" for place, name, problem in _unknown(file, known)),
        *variables.unknown(),
        *variables.malformed(),
    ]
    settings = None
    # The library would name the section alone, and no variable, where one of them does not hold JSON.
    if not variables.malformed():
        try:
            settings = _from(file, flags, kind)()
        except ValidationError as error:
            problems += explained(error, kind, places)
    if settings is None or problems:
        raise ConfigError(one_line("; ".join(problems)))
    return settings, places


def ignored_variables(kind: type[Settings]) -> str | None:
    """One line about the variables of Ousel's prefix that set nothing, with the names that were probably meant."""
    return Variables(KnownNames.of(kind, Config)).ignored()


def _from(file: TomlFile | None, given: Given, kind: type[T]) -> type[T]:
    """The settings class, reading the command line first, then variables, and then a file."""

    class WithFile(kind):  # type: ignore[valid-type, misc]
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], env_settings: PydanticBaseSettingsSource, **_: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            data = {} if file is None else dict(file.data)
            return (
                InitSettingsSource(settings_cls, given.data), env_settings, InitSettingsSource(settings_cls, data)
            )  # fmt: skip

    return WithFile


def _unknown(file: TomlFile | None, known: KnownNames) -> list[tuple[str | None, str, str]]:
    """The place, the name and the problem of each name outside a section that is unknown."""
    if file is None:
        return []
    return [(file.place((name,)), name, problem) for name, problem in known.unknown(file.data)]
