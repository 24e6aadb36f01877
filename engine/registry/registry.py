"""The registry of models: takes pushes, and writes what becomes of models to the topic that every engine follows."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.config import Config
from engine.generation import check_fits
from engine.generations import RollBackRefused, StaleVersion
from engine.log_fields import of_model
from engine.model.weights import decode_weights
from engine.ranking.query import Position
from engine.registry.errors import NoSuchModel, PushOvertaken, RegistryError, VersionPinned
from engine.registry.following import LedgerReader, now_ms
from engine.registry.ledger import (
    Ledger,
    ListedModel,
    model_record,
    pin_record,
    pruning_records,
    roll_back_record,
    withdrawal_record,
)
from engine.registry.stored import ModelFiles, StoredModel
from engine.registry.topic import ModelsTopic

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Push:
    """A model as it came, with a digest that was checked."""

    data: bytearray
    version: int
    sha256: str
    metrics: Mapping[str, float]
    trained_on: tuple[Position, ...]
    pushed_by: str


class ModelRegistry:
    """All methods may be called from any thread, and take as long as the store and the brokers do.

    Each that writes raises RegistryError where a file or a record can't be written, or is not read back in time.

    Args:
        engine: names this engine in what it writes.
    """

    def __init__(self, config: Config, files: ModelFiles, topic: ModelsTopic, engine: str) -> None:
        self._config = config
        self._files = files
        self._topic = topic
        self._answer_s = config.kafka.request_timeout_ms / 1000
        self._one = threading.Lock()  # Two writes of this engine would overtake each other for nothing.
        self.engine = engine
        self.dir, self.topic = files.shown, topic.name
        self.reader = LedgerReader(topic)

    @property
    def ledger(self) -> Ledger:
        """What the topic says.

        Raises:
            RegistryError: it was not read yet.
        """
        ledger = self.reader.ledger
        if ledger is None:
            problem = self.reader.problem or f"registry.topic {self.topic!r} is not read to its end yet"
            raise RegistryError(f"{problem}; try again later")
        return ledger

    def accept(self, push: Push) -> Ledger:
        """Checks a model, stores it and announces it; what the topic says then.

        Raises:
            WeightsError: the file is no model, or does not fit this engine.
            StaleVersion: its version is not above all that were announced.
            PushOvertaken: another push was announced first.
        """
        # Step 1. What can be known without a record.
        self.check_version(push.version)
        check_fits(decode_weights(push.data), self._config)
        with self._one:
            after = self.check_version(push.version).newest
            model = StoredModel(
                push.version, push.sha256, len(push.data), push.metrics, push.trained_on, now_ms(), push.pushed_by,
                self.engine,
            )  # fmt: skip
            # Step 2. The files, before any engine looks for them.
            self._files.store(model, push.data)
            # Step 3. The record; it counts unless one of another push came in between.
            key, value = model_record(model, after)
            ledger = self._write([(key, value)])
        listed = ledger.find(push.version)
        if listed is None or listed.key != key:
            if listed is None or listed.model.sha256 != push.sha256:
                self._delete(model)
            raise PushOvertaken(
                f"another push was announced first, version {ledger.newest}: version {push.version} is not taken; push"
                f" it again, above {ledger.newest}"
            )
        _log.info(
            "model version %d of %s is announced, %d bytes",
            push.version,
            push.pushed_by,
            len(push.data),
            extra=of_model(push.version),
        )
        return ledger

    def check_version(self, version: int) -> Ledger:
        """What the topic says, where this version may be pushed.

        Raises:
            StaleVersion: it may not.
        """
        ledger = self.ledger
        if version <= ledger.newest:
            raise StaleVersion(f"version must be > {ledger.newest}, the newest of the registry, got {version}")
        return ledger

    def load(self, model: StoredModel) -> bytearray:
        """The weights.

        Raises:
            DamagedModel: the file is missing, or not what was stored.
        """
        return self._files.load(model)

    def withdraw(self, version: int, reason: str) -> None:
        """Has no engine serve a model that this one took and has refused after all."""
        with self._one:
            self._write([withdrawal_record(version, reason, self.engine, now_ms())])
        _log.warning("model version %d is withdrawn for all engines: %s", version, reason, extra=of_model(version))

    def roll_back(self, expected: int | None, by: str) -> ListedModel:
        """Takes the serving version back; the one that serves again.

        Raises:
            RollBackRefused: there is none before it, or another version than `expected` serves.
            VersionPinned: a version is pinned.
        """
        with self._one:
            ledger = self.ledger
            serving, previous = ledger.serving, ledger.previous
            version = serving.model.version if serving is not None else 0
            if expected is not None and expected != version:
                raise RollBackRefused(f"expected_version must be {version}, the one that serves, got {expected}")
            if ledger.pinned is not None:
                raise VersionPinned(f"version {ledger.pinned} is pinned: unpin it first, or pin another")
            if previous is None:
                raise RollBackRefused(f"there is no model before version {version} to roll back to")
            ledger = self._write([roll_back_record(version, by, now_ms())])
        _log.warning("model version %d is rolled back by %s", version, by, extra=of_model(version))
        return ledger.serving or previous

    def pin(self, version: int | None, by: str) -> Ledger:
        """Has all engines serve this version until it is unpinned (None); what the topic says then.

        Raises:
            NoSuchModel: the registry has no such version.
        """
        with self._one:
            if version is not None and self.ledger.find(version) is None:
                known = ", ".join(str(one.model.version) for one in self.ledger.models) or "none"
                raise NoSuchModel(f"version must be one of the registry's ({known}), got {version}")
            ledger = self._write([pin_record(version, by, now_ms())])
        _log.warning("model version %s by %s", f"{version} is pinned" if version else "pin is taken away", by)
        return ledger

    def prune(self, keep: int | None = None) -> list[int]:
        """Deletes all models but the `keep` newest (none: `registry.keep`) and those that serve or are pinned."""
        with self._one:
            records, gone = pruning_records(self.ledger, keep or self._config.registry.keep, now_ms())
            if not gone:
                return []
            self._write(records)
        for model in gone:
            self._delete(model)
        _log.info("deleted from the registry: model versions %s", ", ".join(str(model.version) for model in gone))
        return [model.version for model in gone]

    def _write(self, records: Sequence[tuple[str, bytes | None]]) -> Ledger:
        return self.reader.read_through(self._topic.write(records), self._answer_s)

    def _delete(self, model: StoredModel) -> None:
        """Deletes the files of a model that the topic no longer has; where that fails they only take space."""
        try:
            self._files.delete(model)
        except RegistryError as error:
            _log.warning(
                "the files of model version %d are left: %s", model.version, error, extra=of_model(model.version)
            )
