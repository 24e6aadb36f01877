from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from unittest import mock

import pyarrow.parquet as parquet
import pytest
import torch
from ousel.v1 import event_pb2

from engine.events.batch import Record
from engine.events.source import MemorySource
from engine.model.recommender import ModelShape, Recommender
from engine.model.weights import Weights
from tests.trainer.archive.cases import archived, counted, limits
from trainer.archive.archive import Archive
from trainer.archive.folder import ArchiveError
from trainer.config import TrainerConfig
from trainer.divergence import Diverged
from trainer.push import Pushed, PushError, Versions, WeightsRefused
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

    def _train(self, data, section, previous, stop, progress) -> Trained:  # type: ignore[no-untyped-def]
        self.trained_on.append(len(data.log))
        self.warm.append(previous is not None)
        if len(self.trained_on) in self.diverges:
            raise Diverged("encoders", 7, "where its loss is nan", "trainer.learning_rate", section.learning_rate)
        name = "hit_rate@20"
        metrics = {name: self._hit_rates.pop(0), f"popularity_{name}": 0.1, f"frequency_{name}": 0.1, "events": 5.0}
        return Trained(Weights(self._model, []), metrics, None, steps=1, seconds=0.1)

    def _push(self, address, data, metrics, timeout_s, stop) -> Pushed:  # type: ignore[no-untyped-def]
        if self.push_failures:
            self.push_failures -= 1
            raise PushError("away")
        self.tried.append(metrics["hit_rate@20"])
        if len(self.tried) in self.refuse_pushes:
            raise WeightsRefused("INVALID_ARGUMENT: the canary")
        self.pushed.append(len(self.pushed) + 1)
        return Pushed(self.pushed[-1], 1.0)

    def _version(self, address: str) -> Versions | None:
        if not self.versions:
            self.stop.set()
            return None
        known = self.versions.pop(0)
        return Versions(known, known) if isinstance(known, int) else known


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


def waiting(batches: Sequence[Sequence[Record]], seconds: int) -> list[str]:
    """What a service logs in so many seconds of its clock, which every question for the time moves on by one."""
    lines: list[str] = []
    clock = itertools.count()
    stage = Stage(batches, [], clock=lambda: float(next(clock)))
    poll, polls = stage.source.poll, itertools.count()

    def limited(timeout_s: float) -> Sequence[Record]:
        if next(polls) >= seconds:
            stage.stop.set()
        return poll(0)

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler, log = Lines(), logging.getLogger("trainer.service")
    log.addHandler(handler)
    before = log.level
    log.setLevel(logging.INFO)
    try:
        with mock.patch.object(stage.source, "poll", limited):
            stage.service.run()
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
    assert stage.trained_on == []
    return lines


def test_too_few_events_are_said_at_once_and_then_at_a_bounded_rate() -> None:
    once = waiting([records(0, 9)], 3)
    assert once == ["a training needs 10 events (trainer.min_events), and the log holds 9"]
    often = waiting([records(0, 9)], 600)
    assert set(often) == set(once) and 3 <= len(often) <= 600 / 30


def test_records_that_were_refused_are_a_reason_for_too_few_events() -> None:
    wrong = [Record(TOPIC, 0, at, BEGIN_MS, None, b'{"item_id": "a"}') for at in range(9, 29)]
    lines = waiting([records(0, 9), wrong], 5)
    assert "the log holds 9; 20 records were refused, the newest because user_id" in lines[0]


def test_a_training_that_diverges_pushes_nothing_and_the_next_one_starts_from_the_last_good_model(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = Stage([records(0, 30)], [0.2, 0.3], retrain_events=20)
    stage.diverges = [2]
    stage.versions = [1, 1, 1, 2, 2]
    version = stage.service._versions

    def more_events(address: str) -> Versions | None:
        if len(stage.versions) in (5, 3):
            stage.source.append(records(30 + 20 * (len(stage.versions) == 3), 20))
        return version(address)

    stage.service._versions = more_events
    stage.service.run()
    assert (stage.trained_on, stage.tried) == ([30, 50, 70], [0.2, 0.3])
    assert stage.warm == [False, True, True]
    line = (
        "the training of the encoders has diverged at step 7, where its loss is nan: trainer.learning_rate is probably"
    )
    assert (
        caplog.text.count(line) == 1 and "nothing is pushed, and the next training begins after 20 new" in caplog.text
    )


def test_once_ends_with_a_training_that_diverges() -> None:
    stage = Stage([records(0, 30)], [])
    stage.diverges = [1]
    assert not stage.service.run(once=True)
    assert (stage.trained_on, stage.tried) == ([30], [])


def test_trains_again_after_enough_new_events_starting_from_the_last_weights() -> None:
    stage = Stage([records(0, 30)], [0.2, 0.3], retrain_events=20)
    source = stage.source
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


def twice_trained(versions: Sequence[int | Versions | None], **refused: list[int]) -> Stage:
    """A stage that pushes a model of hit rate 0.2, then one of 0.3, while the engine says these versions."""
    stage = Stage([records(0, 30)], [0.2, 0.3], retrain_events=20)
    stage.refuse_pushes = refused.get("refused", [])
    stage.versions = list(versions)
    version = stage.service._versions

    def more_events(address: str) -> Versions | None:
        if len(stage.trained_on) == 1 and len(stage.versions) == len(versions):
            stage.source.append(records(30, 20))
        return version(address)

    stage.service._versions = more_events
    stage.service.run()
    assert stage.trained_on == [30, 50]
    return stage


def test_a_model_that_was_rolled_back_is_not_pushed_again(caplog: pytest.LogCaptureFixture) -> None:
    stage = twice_trained([1, 2, Versions(1, 2), Versions(1, 2), Versions(1, 2)])
    assert stage.tried == [0.2, 0.3]
    assert caplog.text.count("version 2 was rolled back and is not pushed again; the engine serves version 1") == 1


def test_an_engine_that_restarts_after_a_roll_back_gets_the_model_before() -> None:
    assert twice_trained([1, 2, Versions(1, 2), 0, 3]).tried == [0.2, 0.3, 0.2]


def test_after_a_roll_back_of_the_only_model_known_here_nothing_is_pushed(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage([records(0, 30)], [0.2])
    stage.versions = [Versions(0, 1), 0, 0]
    poll, polls = stage.source.poll, itertools.count()

    def limited(timeout_s: float) -> Sequence[Record]:
        if next(polls) > 20:
            stage.stop.set()
        return poll(0)

    monkeypatch.setattr(stage.source, "poll", limited)
    stage.service.run()
    assert stage.tried == [0.2]


def test_weights_that_the_engine_refuses_are_not_pushed_again_and_the_model_before_stays() -> None:
    assert twice_trained([1, 1, 1, 0, 2], refused=[2]).tried == [0.2, 0.3, 0.2]


def test_every_partition_is_read_from_its_beginning() -> None:
    stage = Stage([records(5, 30), records(70, 20, partition=1), records(35, 10)], [0.2])
    stage.source.reassign([(TOPIC, 0), (TOPIC, 1)])
    assert stage.service.run(once=True)
    assert stage.trained_on == [60]
    replay = stage.service._follower.replay
    assert replay is not None and replay.state.partitions == 2
    assert replay.state.positions == {(TOPIC, 0): 45, (TOPIC, 1): 90}


def test_nothing_is_read_or_trained_before_there_is_an_assignment(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage([records(0, 30)], [0.2])
    source = stage.source
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
    source = stage.source
    source.reassign([(TOPIC, 0)])
    stage.versions = [1, 1, 1]
    version = stage.service._versions

    def reassigned(address: str) -> Versions | None:
        if len(stage.versions) == 3:
            source.reassign([(TOPIC, 0), (TOPIC, 1)])
        return version(address)

    stage.service._versions = reassigned
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
    stage = Stage([records(0, 30), [Record(TOPIC, 0, 30, BEGIN_MS + 1000, b"u", forget)], records(31, 12)], [0.2])
    assert stage.service.run(once=True)
    assert stage.trained_on == [12]


def archive_in(path: Path) -> closing[Archive]:
    """An archive of 1970, when the records here come from."""
    return closing(Archive(path, 90, TrainerConfig().events, TOPIC, clock=lambda: 0.0))


def test_what_the_log_has_deleted_since_is_trained_on_from_the_archive(tmp_path: Path) -> None:
    first, second = records(0, 45), records(0, 12, partition=1)
    with archive_in(tmp_path) as archive:
        assert Stage([first[:30], second], [0.2], archive).service.run(once=True)
    # While nobody ran, the log got 15 more of the one partition, and lost the first 20 of it and 11 of the other.
    with archive_in(tmp_path) as archive:
        stage = Stage([first[20:], second[11:]], [0.2], archive)
        assert stage.service.run(once=True)
    assert stage.trained_on == [45 + 12]
    assert [(line.partition, line.offset) for line in archived(tmp_path)] == [
        *((0, at) for at in range(45)),
        *((1, at) for at in range(12)),
    ]


def test_a_changed_assignment_is_archived_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with archive_in(tmp_path) as archive:
        stage = Stage([records(0, 30), records(0, 15, partition=1)], [0.2, 0.3], archive, retrain_events=15)
        source = stage.source
        source.reassign([(TOPIC, 0)])
        stage.versions = [1, 1]
        trained = stage.service._train

        def reassigned(*args: object) -> Trained:
            if not stage.trained_on:
                source.reassign([(TOPIC, 0), (TOPIC, 1)])
            return trained(*args)

        monkeypatch.setattr(stage.service, "_train", reassigned)
        monkeypatch.setattr(source, "poll", lambda timeout_s, poll=source.poll: poll(0))
        stage.service.run()
    assert stage.trained_on == [30, 45]
    assert len(archived(tmp_path)) == 45


def test_a_forget_record_takes_the_users_events_out_of_the_archive(tmp_path: Path) -> None:
    forget = event_pb2.Event(user_id="u", forget=True).SerializeToString()
    with archive_in(tmp_path) as archive, limits(flush_rows=1):
        batches = [records(0, 30), [Record(TOPIC, 0, 30, BEGIN_MS + 1000, b"u", forget)], records(31, 12)]
        assert Stage(batches, [0.2], archive).service.run(once=True)
    assert [line.offset for line in archived(tmp_path)] == list(range(30, 43))
    assert not any(line.user for line in archived(tmp_path)[:1])


def test_an_archive_of_another_log_ends_it_and_stays_as_it_is(tmp_path: Path) -> None:
    with archive_in(tmp_path) as archive:
        assert Stage([records(0, 30)], [0.2], archive).service.run(once=True)
    anew = [record._replace(timestamp_ms=BEGIN_MS + 4000) for record in records(0, 40)]
    with archive_in(tmp_path) as archive:
        stage = Stage([records(0, 20, partition=1), anew], [0.2], archive)
        with pytest.raises(ArchiveError, match="is of another log"):
            stage.service.run(once=True)
    assert stage.trained_on == []
    assert {line.partition for line in archived(tmp_path)} == {0}


def test_what_could_not_be_written_is_written_while_nothing_comes(tmp_path: Path) -> None:
    full = mock.patch.object(
        parquet, "write_table", wraps=parquet.write_table, side_effect=[OSError("full"), *[mock.DEFAULT] * 9]
    )
    seen: list[list[str]] = []
    with archive_in(tmp_path) as archive, limits(flush_rows=1, flush_s=0.0):
        stage = Stage([records(0, 30)], [0.2], archive)
        stage.versions = [1, 1]
        version = stage.service._versions

        def looked(address: str) -> Versions | None:
            seen.append(counted(tmp_path))
            return version(address)

        stage.service._versions = looked
        with full:
            stage.service.run()
    assert not seen[0] and seen[-1]


def test_told_to_stop_amid_the_archive_it_archives_nothing_on_half_of_the_past(tmp_path: Path) -> None:
    with archive_in(tmp_path) as archive:
        assert Stage([records(0, 45)[:30]], [0.2], archive).service.run(once=True)
    with archive_in(tmp_path) as archive, limits(window=10):
        stage = Stage([records(0, 45)[25:]], [0.2], archive)
        replay = archive.replay

        def stopping(assignment):  # type: ignore[no-untyped-def]
            for batch in replay(assignment):
                yield batch
                stage.stop.set()

        with mock.patch.object(archive, "replay", stopping):
            assert stage.service.run()
    assert stage.trained_on == [] and len(archived(tmp_path)) == 30
