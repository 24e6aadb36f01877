from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from ousel.v1 import event_pb2

from engine.events.batch import Record
from tests.trainer.stage import BEGIN_MS, TOPIC, Stage, records
from trainer.model_file import load_model
from trainer.push import Outcome, Versions
from trainer.train import Trained


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


def test_a_registry_that_lost_the_model_gets_it_again() -> None:
    stage = Stage([records(0, 30)], [0.2])
    stage.versions = [1, None, 0, 2]
    stage.service.run()
    assert stage.trained_on == [30]
    assert stage.pushed == [1, 2]


def test_an_engine_that_starts_again_gets_no_push_since_the_registry_has_the_model() -> None:
    stage = Stage([records(0, 30)], [0.2])
    building = Versions(0, 1, 1, {1: (Outcome.BUILDING, "")}, 0.5)
    stage.versions = [building, 1, None, building, 1]
    stage.service.run()
    assert stage.pushed == [1]


def test_a_registry_that_loses_the_model_while_a_training_goes_on_gets_it_at_once() -> None:
    stage = Stage([records(0, 30)], [0.2])
    stage.versions = [1, 0]
    first = stage.service._train

    def long(*arguments: Any) -> Iterator[Trained]:
        yield from first(*arguments)
        progress = arguments[-1]
        for done in (0.1, 0.2):
            progress.update("encoder", done)
        assert stage.pushed == [1, 2]

    stage.service._train = long
    assert stage.service.run(once=True)


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


ROLLED_BACK = Versions(1, 2, 1, {1: (Outcome.SERVING, ""), 2: (Outcome.ROLLED_BACK, "by me")})
REFUSED = Versions(1, 2, 1, {1: (Outcome.SERVING, ""), 2: (Outcome.REFUSED, "the canary")})


def test_a_model_that_was_rolled_back_is_not_pushed_again(caplog: pytest.LogCaptureFixture) -> None:
    stage = twice_trained([1, 2, ROLLED_BACK, ROLLED_BACK, ROLLED_BACK])
    assert stage.tried == [0.2, 0.3]
    line = "version 2 was rolled back (by me) and is not pushed again; the engine serves version 1"
    assert caplog.text.count(line) == 1


def test_a_model_that_the_canary_refuses_after_the_push_is_not_pushed_again(caplog: pytest.LogCaptureFixture) -> None:
    stage = twice_trained([1, Versions(1, 2, 2, {2: (Outcome.BUILDING, "")}), REFUSED, REFUSED, REFUSED])
    assert stage.tried == [0.2, 0.3]
    line = "version 2 was refused (the canary) and is not pushed again; the engine serves version 1"
    assert caplog.text.count(line) == 1


def test_a_registry_that_is_made_anew_after_a_roll_back_gets_the_model_before() -> None:
    assert twice_trained([1, 2, ROLLED_BACK, 0, 3]).tried == [0.2, 0.3, 0.2]


def test_once_waits_for_what_becomes_of_the_model() -> None:
    building = Versions(0, 1, 1, {1: (Outcome.BUILDING, "")}, 0.5)
    stage = Stage([records(0, 30)], [0.2])
    stage.versions = [building, building, building, 1, 1, 1]
    assert stage.service.run(once=True)
    refusing = Stage([records(0, 30)], [0.2])
    refusing.versions = [building, Versions(0, 1, 0, {1: (Outcome.REFUSED, "the canary")})] * 3
    assert not refusing.service.run(once=True)


def test_after_a_roll_back_of_the_only_model_known_here_nothing_is_pushed(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage([records(0, 30)], [0.2])
    stage.versions = [Versions(0, 1, 0, {1: (Outcome.ROLLED_BACK, "by me")}), 0, 0]
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


def test_pushed_models_are_kept_and_a_disk_that_is_full_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    stage = Stage([records(0, 30)], [0.2], models_dir=kept)
    assert stage.service.run(once=True)
    assert load_model(kept / "1.safetensors").metrics["ndcg@20"] == 0.2
    gone = Stage([records(0, 30)], [0.2], models_dir=tmp_path / "gone")
    assert gone.service.run(once=True)
    assert gone.pushed == [1] and "trainer.models_dir: " in caplog.text and "can't be written" in caplog.text
