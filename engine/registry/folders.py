"""Where models lie unless `registry.dir` says so: beside the snapshots."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from engine.config import Config, models_topic
from engine.registry.local_copy import LocalCopy
from engine.registry.places import LocalFolder, Place, place_of
from engine.snapshot.default_folder import default_folder


def registry_place(config: Config) -> Place:
    """The folder of all engines.

    Raises:
        RuntimeError: the system knows no home folder of this user.
    """
    if config.registry.dir is not None:
        return place_of(config.registry.dir)
    return LocalFolder(_state_folder(config) / "models")


def local_copy(config: Config, engine: str) -> LocalCopy:
    """The engine's own copy of the last model that it served.

    Raises:
        RuntimeError: as `registry_place`.
    """
    topic = models_topic(config.registry, config.kafka)
    owner = hashlib.sha256(f"{engine}\0{topic}".encode()).hexdigest()[:16]
    return LocalCopy(LocalFolder(_state_folder(config) / "served-models"), owner)


def _state_folder(config: Config) -> Path:
    """`snapshot.dir`, which several engines may share, or the folder in which the default one lies."""
    if config.snapshot.enabled and config.snapshot.dir is not None:
        return config.snapshot.dir.absolute()
    return default_folder(os.environ).parent
