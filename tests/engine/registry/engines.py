"""Engines that follow one registry, without gRPC and Kafka: pipelines over a log and a topic in memory."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

from engine.config import Config
from engine.events.batch import Record
from engine.events.dead_letter import MemoryDeadLetters
from engine.events.source import MemorySource
from engine.model.weights import Weights, encode_weights
from engine.pipeline import Pipeline
from engine.readiness import ModelGate
from engine.registry.follower import ModelFollower
from engine.registry.ledger import Ledger
from engine.registry.local_copy import LocalCopy
from engine.registry.models import Models
from engine.registry.places import LocalFolder
from engine.registry.registry import ModelRegistry, Push
from engine.registry.stored import ModelFiles
from tests.engine.models import small_weights
from tests.engine.registry.memory import MemoryPlace, MemoryTopic
from tests.engine.test_pipeline import CONFIG, Streams
from tests.engine.worlds import ITEMS, record

DEADLINE_S = 30.0


def until(true: Callable[[], object], what: str) -> None:
    """Waits for a condition, at most until the deadline."""
    deadline, pause = time.monotonic() + DEADLINE_S, threading.Event()
    while not true():
        assert time.monotonic() < deadline, f"not in time: {what}"
        pause.wait(0.005)


def pushed(version: int, weights: Weights | None = None, by: str = "tester") -> Push:
    data = bytearray(encode_weights(weights or small_weights(ITEMS, version)))
    return Push(data, version, hashlib.sha256(data).hexdigest(), {"hit_rate@20": 0.5}, (), by)


class FollowingEngine:
    """An engine that has folded a log and follows the registry; it is stopped at the end of a `with`.

    Args:
        folder: of its local copy.
    """

    def __init__(
        self,
        topic: MemoryTopic,
        place: MemoryPlace,
        folder: Path,
        name: str = "a",
        wait_s: float = 60.0,
        config: Config = CONFIG,
        records: list[Record] | None = None,
    ) -> None:
        self.ready = threading.Event()
        self.source, self._stop = MemorySource(), threading.Event()
        self.source.append(
            records if records is not None else [record(CONFIG, at, f"u{at % 5}", ITEMS[at % 30]) for at in range(60)]
        )
        gate = ModelGate()
        self.pipeline = Pipeline(config, Streams(), on_ready=self.ready.set, models=gate)
        self.registry = ModelRegistry(config, ModelFiles(place), topic, name)
        self.local = LocalCopy(LocalFolder(folder), name)
        follower = ModelFollower(self.registry, self.pipeline.installer, self.local, gate, wait_s)
        self.models = Models(config, self.registry, follower, self.pipeline.installer)
        self._thread = threading.Thread(
            target=self.pipeline.run, args=(self.source, MemoryDeadLetters(), self._stop), daemon=True
        )

    def start(self) -> None:
        self.models.start()
        self._thread.start()

    def __enter__(self) -> FollowingEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends it. Safe to call twice."""
        self._stop.set()
        self.models.stop()
        self.pipeline.wake()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
        self.pipeline.close()

    @property
    def serving(self) -> int:
        return self.pipeline.installer.serving

    def push(self, version: int, weights: Weights | None = None) -> Ledger:
        until(lambda: self.registry.reader.ledger is not None, "the topic is read")
        return self.models.accept(pushed(version, weights))

    def wait_for(self, version: int) -> None:
        until(lambda: self.serving == version, f"version {version} serves, and {self.serving} does")

    def wait_until_ready(self) -> None:
        assert self.ready.wait(DEADLINE_S)
