"""The engine's thread, stepped by hand over a log in memory."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from ousel.v1 import event_pb2

from engine.config import RankingConfig
from engine.events.batch import Record
from engine.events.dead_letter import MemoryDeadLetters
from engine.events.source import LogHealth, MemorySource, SourceError
from engine.generation import Frozen, Generation, build_generation
from engine.generations import StaleVersion
from engine.index.hnsw import BuildStoppedError
from engine.model.weights import WeightsError, encode_weights
from engine.pipeline import NotFollowing, Overloaded, Pipeline
from engine.ranking.query import Cause, Origin, Position, Query, Turn
from engine.ranking.recommender import recommend
from tests.engine.models import small_weights
from tests.engine.worlds import ITEMS, record, small_config, small_generation

CONFIG = small_config()
DEADLINE_S = 30.0


class Streams:
    """An audience of one stream per subject, that keeps every list it gets."""

    def __init__(self, *subjects: str) -> None:
        self.subjects = {subject: Query(subject, "", 3) for subject in subjects}
        self.waiting: list = []
        self.changes: list = []
        self.lists: list = []

    def mark(self, subjects, *, model):
        for cause, concerned in [(Cause.EVENTS, subjects), (Cause.MODEL, self.subjects if model else ())]:
            self.waiting += [_Due(self.subjects[each], cause) for each in concerned if each in self.subjects]

    def mark_catalog(self, change):
        self.changes.append(change)
        self.waiting += [_Due(query, Cause.CATALOG) for query in self.subjects.values()]

    def due(self, limit, last):
        able = [due for due in self.waiting if Turn[due.cause.name] <= last][:limit]
        self.waiting = [due for due in self.waiting if due not in able]
        return able

    def deliver(self, due, ranking):
        self.lists.append((due.query.user_id, due.cause, ranking))


class _Due:
    def __init__(self, query: Query, cause: Cause) -> None:
        self.query, self.cause = query, cause


class Engine:
    """A pipeline with its surroundings in memory."""

    def __init__(self, *subjects: str, config=CONFIG) -> None:
        self.streams, self.letters, self.source = Streams(*subjects), MemoryDeadLetters(), MemorySource()
        self.ready = threading.Event()
        self.pipeline = Pipeline(config, self.streams, on_ready=self.ready.set)

    def step(self, *records: Record) -> None:
        self.source.append(records)
        self.pipeline.step(self.source, self.letters)

    def __enter__(self):
        self.stop = threading.Event()
        self.thread = threading.Thread(
            target=self.pipeline.run, args=(self.source, self.letters, self.stop), daemon=True
        )
        self.thread.start()
        assert self.ready.wait(DEADLINE_S)
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.pipeline.wake()
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive()
        self.pipeline.close()


def events(count: int, user_id: str = "u1", first: int = 0) -> list[Record]:
    return [record(CONFIG, first + at, user_id, ITEMS[at % len(ITEMS)]) for at in range(count)]


def test_a_step_folds_what_it_polls_and_answers_who_is_concerned():
    engine = Engine("u1", "u2")
    engine.step(*events(3, "u1"))
    assert [(user, cause) for user, cause, _ in engine.streams.lists] == [("u1", Cause.EVENTS)]
    (_, _, ranking) = engine.streams.lists[0]
    assert [item.item_id for item in ranking.items] == ["i02", "i01", "i00"]  # the newest weighs most
    assert ranking.reflects[0].offset == 2


def relation(offset: int, **fields: str) -> Record:
    value = event_pb2.Event(event_id=f"r{offset}", **fields).SerializeToString()
    return record(CONFIG, offset, "", "")._replace(value=value)


def test_a_relation_gives_its_user_a_new_list_and_nobody_else():
    engine = Engine("u1", "u2", "u3")
    engine.step(*events(3, "u2"))
    engine.streams.lists.clear()
    engine.step(relation(3, user_id="u1", target_user_id="u2"), relation(4, item_id="i01", entity_id="Ford"))
    assert [(user, cause) for user, cause, _ in engine.streams.lists] == [("u1", Cause.EVENTS)]
    status = engine.pipeline.status()
    assert (status.events_folded, status.targets, status.targets_evicted) == (5, 2, 0)
    assert status.reflects[0].offset == 4


def test_embeddings_after_relations_are_those_of_a_model_built_afterwards():
    engine = Engine("u1")
    engine.step(*events(40, "u2"))
    state = engine.pipeline.state
    engine.pipeline.generations.serving = build_generation(small_weights(ITEMS), 1, {}, Frozen.of(state), CONFIG)
    engine.step(relation(40, user_id="u9", target_user_id="u2"), relation(41, item_id="only here", entity_id="Ford"))
    (_, _, ranking) = (engine.step(record(CONFIG, 42, "u1", "i01")), engine.streams.lists)[1][-1]
    assert ranking.items
    live = engine.pipeline.generation.embedder
    while live.backlog:
        engine.step()
    anew = build_generation(small_weights(ITEMS), 2, {}, Frozen.of(state), CONFIG).embedder
    assert state.items.get("only here") is not None
    torch.testing.assert_close(live.items[: len(state.items)], anew.items[: len(state.items)])
    torch.testing.assert_close(live.users[state.users()], anew.users[state.users()])


def test_every_record_is_folded_or_a_dead_letter_and_the_stream_goes_on():
    engine = Engine()
    broken = record(CONFIG, 1, "u1", "i01")._replace(value=b"\xff\xff")
    engine.step(record(CONFIG, 0, "u1", "i00"), broken, record(CONFIG, 2, "u1", "i02", kind="nonsense"))
    engine.step(record(CONFIG, 3, "u1", "i03"))
    status = engine.pipeline.status()
    assert (status.events_folded, status.events_dead_lettered) == (2, 2)
    assert [letter.record.offset for letter in engine.letters.rejections] == [1, 2]
    assert "nonsense" in engine.letters.rejections[1].reason
    assert status.reflects[0].offset == 3


def test_ready_comes_once_the_log_of_the_start_is_folded():
    source = MemorySource([events(5), events(5, first=5)])
    ready, stop = threading.Event(), threading.Event()
    pipeline = Pipeline(CONFIG, Streams(), on_ready=lambda: (ready.set(), stop.set()))
    assert not pipeline.status().ready
    pipeline.run(source, MemoryDeadLetters(), stop)
    assert ready.is_set() and pipeline.status().ready and pipeline.status().events_folded == 10


def test_a_call_is_answered_while_the_log_is_silent():
    with Engine() as engine:
        ranking = engine.pipeline.ask(Query("nobody", "", 3)).result(DEADLINE_S)
        assert ranking.origin == Origin.POPULARITY and not ranking.known


def test_more_waiting_calls_than_allowed_are_refused():
    config = CONFIG.model_copy(update={"serving": CONFIG.serving.model_copy(update={"max_queries": 2})})
    engine = Engine(config=config)
    for _ in range(2):
        engine.pipeline.ask(Query("u1", "", 3))
    with pytest.raises(Overloaded, match="at most 2 calls"):
        engine.pipeline.ask(Query("u1", "", 3))


def at(offset: int, partition: int = 0) -> Position:
    return Position(CONFIG.kafka.events_topic, partition, offset)


def test_a_call_waits_until_its_own_record_is_folded_and_holds_up_no_other():
    engine = Engine()
    engine.step(*events(3))
    own, next_ = (engine.pipeline.ask(Query("u1", "", 3), at(offset)) for offset in (4, 5))
    before = engine.pipeline.ask(Query("u1", "", 3), at(2))
    engine.step(*events(1, first=3))
    assert before.result(0).reflects[0].offset == 3  # folded long ago: answered at once
    assert not own.done() and not next_.done() and not engine.pipeline._publisher.busy
    engine.step(*events(1, first=4))
    assert own.result(0).reflects[0].offset == 4 and not next_.done()
    assert own.result(0).items[0].item_id == ITEMS[0]
    engine.step(*events(1, first=5))
    assert next_.result(0).reflects[0].offset == 5


def test_calls_that_wait_for_a_record_have_places_of_their_own_until_they_are_taken_back():
    limits = {"max_queries": 2, "max_waiting": 2}
    config = CONFIG.model_copy(update={"serving": CONFIG.serving.model_copy(update=limits)})
    engine = Engine(config=config)
    engine.step(*events(1))
    waiting = [engine.pipeline.ask(Query("u1", "", 3), at(9)) for _ in range(2)]
    engine.step()
    with pytest.raises(Overloaded, match="at most 2 calls may wait for a record"):
        engine.pipeline.ask(Query("u1", "", 3), at(9))
    plain = [engine.pipeline.ask(Query("u1", "", 3)) for _ in range(2)]
    engine.step()
    assert all(call.done() for call in plain)
    waiting[0].cancel()
    assert not engine.pipeline.ask(Query("u1", "", 3), at(9)).done()  # its place is free at once


def test_more_records_at_once_than_lists_in_a_batch_are_answered_batch_by_batch():
    config = CONFIG.model_copy(update={"serving": CONFIG.serving.model_copy(update={"max_batch": 2})})
    engine = Engine(config=config)
    engine.step(*events(1))
    waiting = [engine.pipeline.ask(Query("u1", "", 3), at(1)) for _ in range(3)]
    for _ in range(2):
        engine.step()
    engine.step(*events(1, first=1))
    assert [call.done() for call in waiting] == [True, True, False] and engine.pipeline._publisher.busy
    engine.step()
    assert waiting[2].result(0).reflects[0].offset == 1


def test_a_call_for_a_record_of_a_partition_that_is_not_read_here_fails_at_once():
    engine = Engine()
    engine.step(*events(1))
    elsewhere = engine.pipeline.ask(Query("u1", "", 3), at(0, partition=3))
    engine.step()
    with pytest.raises(NotFollowing, match=r"ousel.events\[3\] is not read here"):
        elsewhere.result(0)


def test_a_cancelled_call_costs_nothing_and_the_next_is_answered():
    engine = Engine()
    gone, kept = engine.pipeline.ask(Query("u1", "", 3)), engine.pipeline.ask(Query("u1", "", 3))
    gone.cancel()
    engine.step(*events(1))
    assert kept.result(0).known


def test_a_list_that_can_not_be_made_fails_its_call_and_no_other(monkeypatch):
    def bad_for_u2(queries, *rest):
        assert all(query.user_id != "u2" for query in queries), "u2 is bad"
        return recommend(queries, *rest)

    engine = Engine("u1", "u2")
    monkeypatch.setattr("engine.publisher.recommend", bad_for_u2)
    failed, answered = (engine.pipeline.ask(Query(user, "", 3)) for user in ("u2", "u1"))
    engine.step(*events(1, "u1"), *events(1, "u2", first=1))
    with pytest.raises(AssertionError, match="u2 is bad"):
        failed.result(0)
    assert answered.result(0).known
    assert [user for user, _, _ in engine.streams.lists] == ["u1"]


def test_a_pushed_model_serves_and_every_stream_hears_of_it():
    with Engine("u1", "u2") as engine:
        engine.source.append(events(20, "u1"))
        engine.pipeline.install(encode_weights(small_weights(ITEMS)), 4, {"hit_rate@20": 0.25}).result(DEADLINE_S)
        ranking = engine.pipeline.ask(Query("u1", "", 3)).result(DEADLINE_S)
        status = engine.pipeline.status()
    assert (ranking.origin, ranking.model_version) == (Origin.MODEL, 4)
    assert (status.model_version, status.model_versions, status.model_metrics) == (4, (4,), {"hit_rate@20": 0.25})
    models = [(user, ranking.model_version) for user, cause, ranking in engine.streams.lists if cause == Cause.MODEL]
    assert models == [("u1", 4), ("u2", 4)]


def test_a_model_without_the_goal_that_is_asked_for_serves_and_says_so(caplog):
    config = CONFIG.model_copy(update={"ranking": RankingConfig(goal="cart")})
    with Engine(config=config) as engine:
        engine.source.append(events(20))
        engine.pipeline.install(encode_weights(small_weights(ITEMS, by_kind=True)), 1, {}).result(DEADLINE_S)
        assert not caplog.records and engine.pipeline.generation.goal == list(config.events.kinds).index("cart")
        engine.pipeline.install(encode_weights(small_weights(ITEMS)), 2, {}).result(DEADLINE_S)
        ranking = engine.pipeline.ask(Query("u1", "", 3)).result(DEADLINE_S)
    assert (ranking.origin, ranking.model_version) == (Origin.MODEL, 2)
    assert "model version 2 has no goals" in caplog.text and "ranking.goal cart" in caplog.text


def test_a_bad_push_is_refused_with_the_reason_and_the_old_model_goes_on():
    good = encode_weights(small_weights(ITEMS))
    with Engine() as engine:
        engine.source.append(events(20))
        engine.pipeline.install(good, 2, {}).result(DEADLINE_S)
        with pytest.raises(WeightsError, match="safetensors"):
            engine.pipeline.install(good[:-10], 3, {}).result(DEADLINE_S)
        with pytest.raises(WeightsError, match="content_dim"):
            engine.pipeline.install(encode_weights(small_weights(content_dim=9)), 3, {}).result(DEADLINE_S)
        with pytest.raises(StaleVersion, match="must be > 2, the newest that has served, got 2"):
            engine.pipeline.install(good, 2, {}).result(DEADLINE_S)
        ranking = engine.pipeline.ask(Query("u1", "", 3)).result(DEADLINE_S)
    assert (ranking.origin, ranking.model_version, len(ranking.items)) == (Origin.MODEL, 2, 3)


def test_what_is_folded_while_a_generation_is_built_is_in_it(monkeypatch):
    with Engine() as engine:

        def slowly(*arguments):
            generation = build_generation(*arguments)
            folded = engine.pipeline.state.events_folded
            engine.source.append(events(10, "u2", first=folded))
            deadline = time.monotonic() + DEADLINE_S
            while engine.pipeline.state.events_folded < folded + 10:
                assert time.monotonic() < deadline
            return generation

        engine.source.append(events(20, "u1"))
        monkeypatch.setattr("engine.installer.build_generation", slowly)
        engine.pipeline.install(encode_weights(small_weights(ITEMS)), 1, {}).result(DEADLINE_S)
    generation, state = engine.pipeline.generation, engine.pipeline.state
    while generation.embedder.backlog:
        generation.spread(state)
    fresh = build_generation(small_weights(ITEMS), 1, {}, Frozen.of(state), CONFIG)
    assert torch.allclose(generation.embedder.users, fresh.embedder.users, atol=1e-5)
    assert torch.allclose(generation.embedder.items, fresh.embedder.items, atol=1e-5)


def test_closing_ends_an_install_that_is_under_way(monkeypatch):
    building = threading.Event()

    def endless(*arguments):
        building.set()
        stopped = arguments[-2]
        while not stopped():
            building.wait(0.001)
        raise BuildStoppedError("stopped")

    monkeypatch.setattr("engine.installer.build_generation", endless)
    with Engine() as engine:
        pushed = engine.pipeline.install(encode_weights(small_weights(ITEMS)), 1, {})
        assert building.wait(DEADLINE_S)
    with pytest.raises(BuildStoppedError):
        pushed.result(0)
    assert engine.pipeline.generation is None


def test_a_log_that_can_not_be_read_ends_the_run():
    engine = Engine()
    engine.source.fail(SourceError("gone"))
    with pytest.raises(SourceError, match="gone"):
        engine.pipeline.run(engine.source, engine.letters, threading.Event())


def test_while_records_keep_coming_what_spreads_is_gathered_and_at_rest_it_is_not(monkeypatch):
    engine = Engine()
    engine.step(*events(20, "u1"))
    engine.pipeline.generations.serving = small_generation(CONFIG, engine.pipeline.state)
    spread: list[int] = []
    monkeypatch.setattr(Generation, "spread", lambda self, state, steps: spread.append(steps) or 0)
    engine.step()
    spread.clear()
    for at in range(9):
        engine.step(*events(1, "u1", first=20 + at))
    assert spread == [4, 4]
    engine.step()
    engine.step()
    assert spread == [4, 4, 2, 1]


class QuietSource(MemorySource):
    """A log whose last answer is as old as a test says."""

    age_s = 0.0

    def health(self):
        return LogHealth(self.age_s)


def test_an_engine_whose_log_is_silent_is_not_ready_and_makes_lists_all_the_same():
    ready, unready, source = threading.Event(), threading.Event(), QuietSource()
    pipeline = Pipeline(CONFIG, Streams(), on_ready=ready.set, on_unready=unready.set)
    stop = threading.Event()
    source.append(events(3))
    thread = threading.Thread(target=pipeline.run, args=(source, MemoryDeadLetters(), stop), daemon=True)
    thread.start()
    try:
        assert ready.wait(DEADLINE_S)
        ready.clear()
        source.age_s = CONFIG.serving.max_log_age_s + 1
        assert unready.wait(DEADLINE_S)
        assert not pipeline.status().ready
        assert [item.item_id for item in pipeline.ask(Query("u1", "", 3)).result(DEADLINE_S).items]
        source.age_s = 0.0
        assert ready.wait(DEADLINE_S)
        assert pipeline.status().ready
    finally:
        stop.set()
        pipeline.wake()
        thread.join(DEADLINE_S)
        pipeline.close()
