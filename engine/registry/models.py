"""All that serving and wiring need of the registry, as one: pushes taken, models listed, this engine made to follow."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from engine.config import Config, models_topic
from engine.errands import begun, in_background
from engine.readiness import ModelGate
from engine.registry.errors import RegistryError
from engine.registry.folders import local_copy, registry_place
from engine.registry.follower import ModelFollower, Swapper
from engine.registry.ledger import Ledger
from engine.registry.registry import ModelRegistry, Push
from engine.registry.standing import Standing
from engine.registry.stored import ModelFiles
from engine.registry.topic import KafkaModelsTopic, ModelsTopic

_log = logging.getLogger(__name__)

_ROLL_BACK_S = 5.0  # A generation at rest serves again within this, as a rule.


@dataclass(frozen=True)
class RolledBack:
    """The version that serves again, and whether it does so in this engine already."""

    version: int
    serving: bool


@dataclass(frozen=True)
class ModelList:
    """What the registry has, and what this engine makes of it.

    Attributes:
        serving: the version that this engine serves; 0 before the first.
        dir, topic: where the registry is.
    """

    ledger: Ledger
    standing: Standing
    serving: int
    dir: str
    topic: str


class Models:
    """The registry as one engine uses it. Methods that write take long, and raise RegistryError where they can't."""

    def __init__(self, config: Config, registry: ModelRegistry, follower: ModelFollower, swapper: Swapper) -> None:
        self._keep = config.registry.keep
        self._registry = registry
        self._follower = follower
        self._swapper = swapper

    def start(self) -> None:
        """Follows the registry from now on."""
        self._follower.start()

    def stop(self) -> None:
        """Ends the threads. Safe to call before `start`."""
        self._follower.stop()

    def check_version(self, version: int) -> int:
        """The newest version of the registry, where this one may be pushed.

        Raises:
            StaleVersion: it may not.
        """
        return self._registry.check_version(version).newest

    @property
    def newest(self) -> int:
        """The newest version of the registry; 0 before the first."""
        return self._registry.ledger.newest

    def accept(self, push: Push) -> Ledger:
        """Takes a push, see `ModelRegistry.accept`, and deletes what is beyond `registry.keep`."""
        ledger = self._registry.accept(push)
        if len(ledger.models) > self._keep:
            in_background("model-prune", self._prune_quietly, begun())
        return ledger

    def roll_back(self, expected: int | None, by: str) -> RolledBack:
        """Takes the serving version back, and waits a little for this engine to follow."""
        listed = self._registry.roll_back(expected, by)
        version = listed.model.version
        if self._swapper.at_rest == version:
            self._registry.reader.wait(lambda: self._swapper.serving == version, _ROLL_BACK_S)
        return RolledBack(version, self._swapper.serving == version)

    def pin(self, version: int | None, by: str) -> Ledger:
        return self._registry.pin(version, by)

    def prune(self, keep: int | None) -> list[int]:
        return self._registry.prune(keep)

    def listed(self) -> ModelList:
        registry = self._registry
        return ModelList(registry.ledger, self.standing(), self._swapper.serving, registry.dir, registry.topic)

    def standing(self) -> Standing:
        return self._follower.standing()

    def _prune_quietly(self) -> None:
        try:
            self._registry.prune()
        except RegistryError as error:
            _log.warning("old models could not be deleted: %s", error)


def open_models(
    config: Config, swapper: Swapper, gate: ModelGate, engine: str, topic: ModelsTopic | None = None
) -> Models:
    """The registry that the configuration names; nothing is asked of it before `start`.

    Args:
        engine: names this engine.
        topic: in place of the one in Kafka.
    """
    topic = topic or KafkaModelsTopic(config.kafka, models_topic(config.registry, config.kafka))
    registry = ModelRegistry(config, ModelFiles(registry_place(config)), topic, engine)
    follower = ModelFollower(registry, swapper, local_copy(config, engine), gate, config.registry.wait_s)
    return Models(config, registry, follower, swapper)
