"""A model as the registry has it: its name, what is known of it, and its file, read back against its digest."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from engine.ranking.query import Position
from engine.registry.errors import DamagedModel
from engine.registry.places import Place

_SHA256_CHARS = 64
_PREFIX_CHARS = 16
_MOST_VERSION = 2**64 - 1


@dataclass(frozen=True)
class StoredModel:
    """A model that was accepted.

    Attributes:
        sha256: of the file, in hexadecimal.
        trained_on: the last record of each partition that it has learned from.
        accepted_ms: since 1970.
        pushed_by: names whoever pushed it.
        engine: names the engine that took it.
    """

    version: int
    sha256: str
    size_bytes: int
    metrics: Mapping[str, float]
    trained_on: tuple[Position, ...]
    accepted_ms: int
    pushed_by: str
    engine: str

    @property
    def name(self) -> str:
        """Of its file, without the ending. Several logs may share a folder: the digest tells their models apart."""
        return f"{self.version}-{self.sha256[:_PREFIX_CHARS]}"

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"metrics": dict(self.metrics), "trained_on": [at._asdict() for at in self.trained_on]}

    @classmethod
    def of_json(cls, fields: Any) -> StoredModel:
        """What `as_json` gave.

        Raises:
            ValueError: it is not that.
        """
        try:
            trained_on = tuple(
                Position(_text(at["topic"]), _whole(at["partition"]), int(at["offset"])) for at in fields["trained_on"]
            )
            model = cls(
                _whole(fields["version"]),
                _text(fields["sha256"]),
                _whole(fields["size_bytes"]),
                {_text(name): float(value) for name, value in fields["metrics"].items()},
                trained_on,
                _whole(fields["accepted_ms"]),
                _text(fields["pushed_by"]),
                _text(fields["engine"]),
            )
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"is no model of the registry: {error!r}") from None
        if len(model.sha256) != _SHA256_CHARS or not set(model.sha256) <= set("0123456789abcdef"):
            raise ValueError(f"sha256 must have {_SHA256_CHARS} hexadecimal digits, got {model.sha256[:80]!r}")
        if not 1 <= model.version <= _MOST_VERSION or not all(map(math.isfinite, model.metrics.values())):
            raise ValueError("is no model of the registry: its version or a metric is out of range")
        return model


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!r} is no whole number >= 0")
    return value


class ModelFiles:
    """The models' files in a place: `VERSION-DIGEST.safetensors`, and what is known of each as JSON beside it.

    All methods raise RegistryError where the place can't be used.

    Args:
        prefix: of the names, for files that are nobody else's.
    """

    def __init__(self, place: Place, prefix: str = "") -> None:
        self._place = place
        self._prefix = prefix
        self.shown = place.shown

    def store(self, model: StoredModel, data: bytes | bytearray) -> None:
        """Adds a model; the JSON comes last, so that where it lies the weights lie, too."""
        self._place.write(f"{self._prefix}{model.name}.safetensors", data)
        self._place.write(f"{self._prefix}{model.name}.json", json.dumps(model.as_json(), indent=2).encode() + b"\n")

    def load(self, model: StoredModel) -> bytearray:
        """The weights.

        Raises:
            DamagedModel: the file is missing, or not what was stored.
        """
        name = f"{self._prefix}{model.name}.safetensors"
        data = self._place.read(name, model.size_bytes)
        digest = hashlib.sha256(data).hexdigest()
        if digest != model.sha256:
            raise DamagedModel(
                f"{self.shown}/{name}: has {len(data)} bytes of SHA-256 {digest}, and {model.size_bytes} bytes of"
                f" {model.sha256} were stored"
            )
        return data

    def delete(self, model: StoredModel) -> None:
        """Deletes the files of a model, if they are there."""
        self._place.delete(f"{self._prefix}{model.name}.json")
        self._place.delete(f"{self._prefix}{model.name}.safetensors")
