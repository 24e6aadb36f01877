"""The last model that served here, in a folder of this engine: a restart has it also where the registry is away."""

from __future__ import annotations

import json
import logging

from engine.registry.errors import DamagedModel, RegistryError
from engine.registry.places import LocalFolder
from engine.registry.stored import ModelFiles, StoredModel

_log = logging.getLogger(__name__)

_MOST_BYTES = 2**20


class LocalCopy:
    """One model, and the file that names it.

    Args:
        owner: names this engine and its log in the folder, which others may share.
    """

    def __init__(self, folder: LocalFolder, owner: str) -> None:
        self._folder = folder
        self._files = ModelFiles(folder, f"{owner}-")
        self._pointer = f"{owner}.json"

    def model(self) -> StoredModel | None:
        """The model that is kept; None where there is none, or where it can't be told which."""
        try:
            return StoredModel.of_json(json.loads(self._folder.read(self._pointer, _MOST_BYTES)))
        except DamagedModel:
            return None
        except (RegistryError, ValueError) as error:
            _log.warning("the local copy of the last model can't be told: %s", error)
            return None

    def load(self, model: StoredModel) -> bytearray:
        """Its weights.

        Raises:
            RegistryError: they can't be read, or are damaged.
        """
        try:
            return self._files.load(model)
        except RegistryError as error:
            raise type(error)(f"the local copy of model version {model.version}: {error}") from error

    def keep(self, model: StoredModel, data: bytes | bytearray) -> None:
        """Keeps a model in place of the one before.

        Raises:
            RegistryError: it can't be written.
        """
        before = self.model()
        if before == model:
            return
        self._files.store(model, data)
        self._folder.write(self._pointer, json.dumps(model.as_json()).encode())
        if before is not None and before.name != model.name:
            self._files.delete(before)

    def drop(self) -> None:
        """Keeps none any more; logs where it can't be deleted."""
        before = self.model()
        try:
            self._folder.delete(self._pointer)
            if before is not None:
                self._files.delete(before)
        except RegistryError as error:
            _log.warning("the local copy of the last model can't be deleted: %s", error)
