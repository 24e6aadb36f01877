"""Where models lie unless `registry.dir` says so: beside the snapshots."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from engine.config import Config, models_topic
from engine.registry.local_copy import LocalCopy
from engine.registry.places import LocalFolder, Nowhere, Place, place_of
from engine.snapshot.default_folder import default_folder


def registry_place(config: Config) -> Place:
    """The folder of all engines."""
    if config.registry.dir is not None:
        return place_of(config.registry.dir)
    try:
        return LocalFolder(_state_folder(config) / "models")
    except RuntimeError as error:
        return Nowhere(f"registry.dir must name a folder, because there is no default one here: {error}")


def local_copy(config: Config, engine: str) -> LocalCopy | None:
    """The engine's own copy of the last model that it served; None where there is no folder for it."""
    topic = models_topic(config.registry, config.kafka)
    owner = hashlib.sha256(f"{engine}\0{topic}".encode()).hexdigest()[:16]
    try:
        return LocalCopy(LocalFolder(_state_folder(config) / "served-models"), owner)
    except RuntimeError:
        return None  # The registry says so as well, where it has no folder either.


def _state_folder(config: Config) -> Path:
    """`snapshot.dir`, which several engines may share, or the folder in which the default one lies."""
    if config.snapshot.enabled and config.snapshot.dir is not None:
        return config.snapshot.dir.absolute()
    return default_folder(os.environ).parent
