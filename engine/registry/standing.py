"""What one engine makes of the registry: what it builds, what it refuses, and where its model is from."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Source(enum.Enum):
    """Where the serving model is from."""

    NONE = "none"
    REGISTRY = "registry"
    LOCAL_COPY = "local copy"


@dataclass(frozen=True)
class Building:
    """A model that is being made ready.

    Attributes:
        progress: from 0 to 1, about.
        began_s: by the monotonic clock.
        seconds: since it began.
    """

    version: int
    progress: float
    began_s: float
    seconds: float = 0.0


@dataclass(frozen=True)
class RefusedHere:
    """A model that this engine does not take; `time_s` is since 1970."""

    version: int
    reason: str
    time_s: float


@dataclass(frozen=True)
class Standing:
    """How far an engine is.

    Attributes:
        problem: what keeps it from following the registry; "" where nothing does.
    """

    source: Source = Source.NONE
    building: Building | None = None
    refused: RefusedHere | None = None
    problem: str = ""
