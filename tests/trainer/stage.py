"""The trainer's service with its neighbors replaced."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import torch
from ousel.v1 import event_pb2

from engine.events.batch import Record
from engine.events.source import MemorySource
from engine.model.recommender import ModelShape, Recommender
from engine.model.weights import Weights
from engine.ranking.scorers import SCORERS
from trainer.archive.archive import Archive
from trainer.config import TrainerConfig
from trainer.divergence import Diverged
from trainer.push import Outcome, Pushed, PushError, Versions, WeightsRefused
from trainer.service import TrainerService
from trainer.train import Trained

TOPIC = "ousel.events"
BEGIN_MS = 1_700_000_000_000


def records(first: int, count: int, partition: int = 0) -> Sequence[Record]:
    events = [event_pb2.Event(user_id="u", item_id=f"i{at % 5}") for at in range(first, first + count)]
    return [
        Record(TOPIC, partition, first + at, BEGIN_MS + at, None, e.SerializeToString()) for at, e in enumerate(events)
    ]


class Stage:
    """A service with its neighbors replaced; it stops once everything asked for has happened."""

    def __init__(
        self,
        batches: Sequence[Sequence[Record]],
        hit_rates: Sequence[float],
        archive: Archive | None = None,
        clock: Callable[[], float] = time.monotonic,
        **settings: object,
    ) -> None:
        self.stop = threading.Event()
        self.trained_on: list[int] = []
        self.warm: list[bool] = []
        self.pushed: list[int] = []
        self.versions: list[int | Versions | None] = []  # what the engine says, call by call; then it is over
        self.push_failures = 0
        self.refuse_pushes: list[int] = []  # by number, from 1
        self.tried: list[float] = []  # the hit rate of each model that was pushed or refused
        self.diverges: list[int] = []  # trainings by number, from 1
        self._hit_rates = list(hit_rates)
        torch.manual_seed(0)
        self._model = Recommender(ModelShape(vocabulary=0, content_dim=8, kinds=8, dim=8, heads=1, blocks=1, window=4))
        config = TrainerConfig.model_validate({"trainer": {"min_events": 10, "check_s": 1e-9} | settings})
        self.source = MemorySource(batches)
        self.service = TrainerService(
            config, self.source, self.stop, archive=archive,
            train=self._train, push_next=self._push, versions=self._version, clock=clock,
        )  # fmt: skip

    def _train(self, data, section, previous, stop, progress) -> list[Trained]:  # type: ignore[no-untyped-def]
        self.trained_on.append(len(data.log))
        self.warm.append(previous is not None)
        if len(self.trained_on) in self.diverges:
            raise Diverged("encoders", 7, "where its loss is nan", "trainer.learning_rate", 0.01)
        name, own = "ndcg@20", self._hit_rates.pop(0)
        metrics = {f"{scorer}_{name}": 0.1 for scorer in SCORERS} | {name: own, "hit_rate@20": own, "events": 5.0}
        return [Trained(Weights(self._model, []), metrics, None, steps=1, seconds=0.1)]

    def _push(self, address, file, timeout_s, stop) -> Pushed:  # type: ignore[no-untyped-def]
        if self.push_failures:
            self.push_failures -= 1
            raise PushError("away")
        self.tried.append(file.metrics["hit_rate@20"])
        if len(self.tried) in self.refuse_pushes:
            raise WeightsRefused("INVALID_ARGUMENT: the canary")
        self.pushed.append(len(self.pushed) + 1)
        return Pushed(self.pushed[-1], 1.0)

    def _version(self, address: str) -> Versions | None:
        if not self.versions:
            self.stop.set()
            return None
        known = self.versions.pop(0)
        if not isinstance(known, int):
            return known
        outcomes = dict.fromkeys(range(1, known), (Outcome.STORED, ""))
        return Versions(known, known, known, outcomes | {known: (Outcome.SERVING, "")})
