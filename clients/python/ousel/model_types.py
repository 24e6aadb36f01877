"""The values that the client returns about models: small, frozen, and free of protobuf and gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ousel.types import Position


class ModelState(StrEnum):
    """What has become of a model that was pushed."""

    SERVING = "serving"  # the one that all engines are to serve
    STORED = "stored"
    WITHDRAWN = "withdrawn"  # refused after all by the engine that took it
    ROLLED_BACK = "rolled back"
    UNKNOWN = "unknown"  # an engine newer than this client


class ModelOrigin(StrEnum):
    """Where an engine has its serving model from."""

    NONE = "none"  # no model serves
    REGISTRY = "registry"
    LOCAL_COPY = "local copy"  # the registry could not give the one that is to serve
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class RolledBack:
    """The model version that serves again, and how long the engine took.

    Attributes:
        serving: whether the engine that was asked serves it; False: it fetches and builds it first.
    """

    version: int
    swap_ms: float
    serving: bool = True


@dataclass(frozen=True, slots=True)
class ModelBuild:
    """A model that an engine is making ready.

    Attributes:
        progress: from 0 to 1, about.
        seconds: since it began.
    """

    version: int
    progress: float
    seconds: float


@dataclass(frozen=True, slots=True)
class RefusedModel:
    """A model that was to serve and that an engine does not take."""

    version: int
    reason: str
    time: datetime


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A model as the registry has it.

    Attributes:
        sha256: of the weights file, in hexadecimal.
        metrics: what the trainer measured, by name.
        trained_on: the last record of each partition that the model has learned from, where the pusher said so.
        engine: the one that took the push.
        reason: why it was withdrawn, or who rolled it back; "" else.
    """

    version: int
    sha256: str
    size_bytes: int
    metrics: Mapping[str, float]
    trained_on: tuple[Position, ...]
    accepted: datetime
    pushed_by: str
    engine: str
    state: ModelState
    reason: str


@dataclass(frozen=True, slots=True)
class ModelList:
    """The models of the registry, and what the engine that was asked makes of them.

    Attributes:
        models: the newest first.
        announced_version: the one that all engines are to serve; 0: none.
        pinned_version: 0: none.
        newest_version: the greatest that was ever announced.
        serving_version: the one that this engine serves; 0: none.
        origin: where it has that from.
        registry_problem: what keeps it from following the registry; "" where nothing does.
        dir, topic: where the registry is.
    """

    models: tuple[RegisteredModel, ...]
    announced_version: int
    pinned_version: int
    newest_version: int
    serving_version: int
    origin: ModelOrigin
    building: ModelBuild | None
    refused: RefusedModel | None
    registry_problem: str
    dir: str
    topic: str
