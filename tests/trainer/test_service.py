from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence

import pytest
import torch
from ousel.v1 import event_pb2

from engine.events.batch import Record
from engine.events.source import MemorySource
from engine.model.recommender import ModelShape, Recommender
from engine.model.weights import Weights
from trainer.config import TrainerConfig
from trainer.push import Pushed, PushError
from trainer.service import TrainerService
from trainer.train import Trained

TOPIC = "ousel.events"


def records(first: int, count: int, partition: int = 0) -> Sequence[Record]:
    events = [event_pb2.Event(user_id="u", item_id=f"i{at % 5}") for at in range(first, first + count)]
    return [Record(TOPIC, partition, first + at, 1000 + at, None, e.SerializeToString()) for at, e in enumerate(events)]


class Stage:
    """A service with its neighbors replaced; it stops once everything asked for has happened."""

    def __init__(self, batches: Sequence[Sequence[Record]], hit_rates: Sequence[float], **settings: object) -> None:
        self.stop = threading.Event()
        self.trained_on: list[int] = []
        self.warm: list[bool] = []
        self.pushed: list[int] = []
        self.versions: list[int | None] = []  # what the engine says, call by call; then it is over
        self.push_failures = 0
        self._hit_rates = list(hit_rates)
        torch.manual_seed(0)
        self._model = Recommender(ModelShape(vocabulary=0, content_dim=8, kinds=8, dim=8, heads=1, blocks=1, window=4))
        config = TrainerConfig.model_validate({"trainer": {"min_events": 10, "check_s": 1e-9} | settings})
        self.service = TrainerService(
            config, MemorySource(batches), self.stop,
            train=self._train, push_next=self._push, serving_version=self._version,
        )  # fmt: skip

    def _train(self, data, section, previous, stop, progress) -> Trained:  # type: ignore[no-untyped-def]
        self.trained_on.append(len(data.log))
        self.warm.append(previous is not None)
        name = "hit_rate@20"
        metrics = {name: self._hit_rates.pop(0), f"popularity_{name}": 0.1, f"frequency_{name}": 0.1, "events": 5.0}
        return Trained(Weights(self._model, []), metrics, None, steps=1, seconds=0.1)

    def _push(self, address, data, metrics, timeout_s, stop) -> Pushed:  # type: ignore[no-untyped-def]
        if self.push_failures:
            self.push_failures -= 1
            raise PushError("away")
        self.pushed.append(len(self.pushed) + 1)
        return Pushed(self.pushed[-1], 1.0)

    def _version(self, address: str) -> int | None:
        if not self.versions:
            self.stop.set()
            return None
        return self.versions.pop(0)


def test_trains_once_the_log_is_caught_up_and_pushes() -> None:
    stage = Stage([records(0, 30), records(30, 30)], [0.2])
    assert stage.service.run()
    assert stage.trained_on == [60]
    assert stage.pushed == [1]


def test_once_ends_after_one_training() -> None:
    stage = Stage([records(0, 30)], [0.2])
    assert stage.service.run(once=True)
    assert (stage.trained_on, stage.pushed) == ([30], [1])


def test_what_the_gate_refuses_is_not_pushed() -> None:
    stage = Stage([records(0, 30)], [0.05])
    assert not stage.service.run(once=True)
    assert stage.pushed == []


def test_too_short_a_log_is_not_trained_on() -> None:
    stage = Stage([records(0, 9)], [])
    assert not stage.service.run(once=True)
    assert stage.trained_on == []


def test_trains_again_after_enough_new_events_starting_from_the_last_weights() -> None:
    stage = Stage([records(0, 30)], [0.2, 0.3], retrain_events=20)
    source = stage.service._source
    assert isinstance(source, MemorySource)
    stage.versions = [1, 1, 2, 2]
    source.append(records(30, 19))
    source.append(records(49, 1))
    stage.service.run()
    assert stage.trained_on == [30, 50]
    assert stage.warm == [False, True]
    assert stage.pushed == [1, 2]


def test_an_engine_that_lost_the_model_gets_it_again() -> None:
    stage = Stage([records(0, 30)], [0.2])
    stage.versions = [1, None, 0, 2]
    stage.service.run()
    assert stage.trained_on == [30]
    assert stage.pushed == [1, 2]


def test_a_push_that_failed_is_tried_again() -> None:
    stage = Stage([records(0, 30)], [0.2])
    stage.push_failures = 2
    stage.versions = [0, 0, 1]
    stage.service.run()
    assert (stage.trained_on, stage.pushed) == ([30], [1])


def source_of(stage: Stage) -> MemorySource:
    assert isinstance(stage.service._source, MemorySource)
    return stage.service._source


def test_every_partition_is_read_from_its_beginning() -> None:
    stage = Stage([records(5, 30), records(70, 20, partition=1), records(35, 10)], [0.2])
    source_of(stage).reassign([(TOPIC, 0), (TOPIC, 1)])
    assert stage.service.run(once=True)
    assert stage.trained_on == [60]
    replay = stage.service._replay
    assert replay is not None and replay.state.partitions == 2
    assert replay.state.positions == {(TOPIC, 0): 45, (TOPIC, 1): 90}


def test_nothing_is_read_or_trained_before_there_is_an_assignment(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage([records(0, 30)], [0.2])
    source = source_of(stage)
    source.reassign(None)
    poll, empty = source.poll, []

    def assigned_after_three(timeout_s: float) -> Sequence[Record]:
        found = poll(0)
        if not source.assignment():
            empty.append(found)
            if len(empty) == 3:
                source.reassign([(TOPIC, 0)])
        return found

    monkeypatch.setattr(source, "poll", assigned_after_three)
    assert stage.service.run(once=True)
    assert list(map(len, empty)) == [0, 0, 0]
    assert stage.trained_on == [30]


def test_a_changed_assignment_is_read_anew_into_an_empty_store(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage([records(0, 30), records(0, 15, partition=1)], [0.2, 0.3], retrain_events=15)
    source = source_of(stage)
    source.reassign([(TOPIC, 0)])
    stage.versions = [1, 1, 1]
    version = stage.service._serving_version

    def reassigned(address: str) -> int | None:
        if len(stage.versions) == 3:
            source.reassign([(TOPIC, 0), (TOPIC, 1)])
        return version(address)

    stage.service._serving_version = reassigned
    poll, polls = source.poll, itertools.count()

    def limited(timeout_s: float) -> Sequence[Record]:
        if next(polls) > 100:
            stage.stop.set()
        return poll(0)

    monkeypatch.setattr(source, "poll", limited)
    stage.service.run()
    assert stage.trained_on == [30, 45]


def test_a_forget_record_in_the_log_takes_the_users_events_out_of_the_store() -> None:
    forget = event_pb2.Event(user_id="u", forget=True).SerializeToString()
    stage = Stage([records(0, 30), [Record(TOPIC, 0, 30, 2000, b"u", forget)], records(31, 12)], [0.2])
    assert stage.service.run(once=True)
    assert stage.trained_on == [12]
