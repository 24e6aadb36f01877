"""A trained model on disk: the weights as the engine takes them, and beside them what they scored, as JSON."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.model.weights import Weights, WeightsError, decode_weights, encode_weights
from trainer.atomic import write_atomically

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class ModelFile:
    """What was read: `data` is the file's bytes, `figures` the JSON beside it, None where there is none."""

    weights: Weights
    data: bytes
    figures: dict[str, Any] | None

    @property
    def metrics(self) -> dict[str, float]:
        return dict(self.figures["metrics"]) if self.figures else {}

    @property
    def positions(self) -> dict[tuple[str, int], int]:
        """Up to where the model has learned, in each partition of each topic; nothing where files were read."""
        found = self.figures.get("positions", ()) if self.figures else ()
        return {(one["topic"], one["partition"]): one["position"] for one in found}


def figures_path(path: Path) -> Path:
    """Where the JSON lies."""
    return path.with_suffix(".json")


def save_model(path: Path, weights: Weights, figures: dict[str, Any]) -> None:
    """Writes the weights and then the figures, which name the weights by their SHA-256."""
    data = encode_weights(weights)
    named = figures | {"sha256": hashlib.sha256(data).hexdigest()}
    text = json.dumps(named, indent=2) + "\n"
    write_atomically(path, lambda file: file.write(data))
    write_atomically(figures_path(path), lambda file: file.write(text.encode()))


def load_model(path: Path) -> ModelFile:
    """Reads weights, and the figures where they are there.

    Raises:
        WeightsError: there is no such file, it holds no weights, or the figures beside it are broken or of others.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: can't be read: {error.strerror}") from None
    try:
        weights = decode_weights(data)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    beside = figures_path(path)
    return ModelFile(weights, data, _figures(beside, data) if beside.is_file() else None)


def _figures(path: Path, weights: bytes) -> dict[str, Any]:
    try:
        figures = json.loads(path.read_bytes())
        sha256, metrics = figures["sha256"], figures["metrics"]
        usable = all(math.isfinite(value) for value in metrics.values())
        usable = usable and _are_positions(figures.get("positions", []))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        usable = False
    if not usable:
        raise WeightsError(f"{path}: must be a JSON object with sha256 and finite metrics, as train writes it")
    digest = hashlib.sha256(weights).hexdigest()
    if sha256 != digest:
        raise WeightsError(f"{path}: must be of the weights beside it, with SHA-256 {digest}, got {sha256}")
    return dict(figures)


def _are_positions(given: Any) -> bool:
    kinds = {"topic": str, "partition": int, "position": int}
    return isinstance(given, list) and all(
        one.keys() == kinds.keys() and all(isinstance(one[name], kind) for name, kind in kinds.items()) for one in given
    )
