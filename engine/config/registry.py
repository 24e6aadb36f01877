"""Where accepted models are kept, and which topic says which of them serves."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, field_validator

from engine.config.kafka import KafkaConfig, Topic
from engine.config.section import DAY_S, Section, home_resolved

_SCHEMES = ("file", "s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss")
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL)
_EVENTS = re.compile(r"(?<![A-Za-z0-9_-])events(?![A-Za-z0-9_-])")


class RegistryConfig(Section):
    """Where accepted models are kept, so that every engine finds them, also after a restart."""

    dir: str | None = Field(
        None,
        max_length=4096,
        description="The models lie in this folder, which all engines must reach: a path, or an address such as"
        " s3://bucket/models, gs://, hdfs:// or abfs://; none: the folder models in snapshot.dir, or in"
        " $STATE_DIRECTORY or ousel in $XDG_STATE_HOME, which is right for engines on one machine.",
    )
    topic: Topic | None = Field(
        None,
        description="This compacted topic says which model serves; none: kafka.events_topic with models in place of"
        " events, which is ousel.models.",
    )
    keep: int = Field(
        10, ge=1, le=1000,
        description="So many of the newest models stay in the registry; older ones are deleted after a push, unless"
        " they serve or are pinned.",
    )  # fmt: skip
    wait_s: float = Field(
        60.0, ge=0, le=DAY_S, allow_inf_nan=False,
        description="An engine that has read the log waits so long for the registry before it serves without it, by its"
        " own copy of the last model, or else by the best scorer that counts.",
    )  # fmt: skip

    @field_validator("dir")
    @classmethod
    def _is_a_place(cls, place: str | None) -> str | None:
        if place is None:
            return None
        address = _ADDRESS.fullmatch(place)
        if address is None:
            return str(home_resolved(Path(place)).absolute()) if place else _refuse(place)
        scheme, rest = address.groups()
        if scheme not in _SCHEMES or not rest:
            return _refuse(place)
        # Such an address would show its secret in logs and in the status.
        if "@" in rest.partition("/")[0] and scheme not in ("abfs", "abfss"):
            raise ValueError("must not hold a user or a password: the store's own variables and files are for them")
        return place


def _refuse(place: str) -> str:
    raise ValueError(f"must be a folder, or an address that begins with one of {', '.join(_SCHEMES)}, got {place!r}")


def models_topic(registry: RegistryConfig, kafka: KafkaConfig) -> str:
    """The name of the topic that says which model serves."""
    if registry.topic is not None:
        return registry.topic
    derived, replaced = _EVENTS.subn("models", kafka.events_topic, count=1)
    return derived if replaced else f"{kafka.events_topic}.models"
