"""What the publisher remembers; the lists that it makes are in test_pipeline.py."""

from __future__ import annotations

import sys

import pytest

from engine.config import Config, ServingConfig
from engine.publisher import Overloaded, Publisher
from engine.ranking.query import Position, Query
from engine.ranking.recommender import recommend
from tests.engine.logs import decoded
from tests.engine.test_pipeline import Streams
from tests.engine.worlds import ITEMS, NOW_MS, purchases, small_config, small_state

LIMIT = 5
CONFIG = Config(**dict(small_config()) | {"serving": ServingConfig(max_streams=LIMIT, max_batch=2)})


def test_record_times_of_those_without_a_stream_do_not_pile_up_under_steady_calls():
    state = small_state(CONFIG)
    publisher = Publisher(CONFIG, Streams())
    for at in range(4 * LIMIT):
        batch = decoded([(f"new{at}-{more}", "", ITEMS[0], 0, NOW_MS) for more in range(2 * LIMIT)])
        for _ in range(3):  # more than one batch of lists
            publisher.ask(Query("u1", "", 3))
        publisher.mark(batch, state.fold(batch), live=True)
        publisher.publish(state, None)
        assert len(publisher._record_ms) <= LIMIT


def slow_lists(monkeypatch, list_s: float) -> None:
    """A clock that only the making of lists moves."""
    clock = [0.0]

    def make(queries, *rest):
        clock[0] += list_s * len(queries)
        return recommend(queries, *rest)

    monkeypatch.setattr("engine.publisher.recommend", make)
    monkeypatch.setattr("engine.publisher.time.perf_counter", lambda: clock[0])


def admitted(publisher: Publisher, calls: int) -> int:
    """How many of so many calls at once may wait."""
    count = 0
    try:
        while count < calls:
            publisher.ask(Query("u1", "", 3))
            count += 1
    except Overloaded as error:
        assert error.retry_after_ms == 100
    return count


def with_batches_of(max_batch: int) -> Config:
    return Config(**dict(small_config()) | {"serving": ServingConfig(max_wait_ms=100, max_batch=max_batch)})


@pytest.mark.parametrize(("list_s", "expected"), [(0.001, 101), (0.005, 21), (0.03, 4), (10.0, 2)])
def test_so_many_calls_may_wait_as_are_answered_in_time_and_always_a_batch(monkeypatch, list_s, expected):
    slow_lists(monkeypatch, list_s)
    config = with_batches_of(2)
    state = small_state(config)
    publisher = Publisher(config, Streams())
    assert admitted(publisher, 1000) == 1000  # nothing is known yet
    while publisher.busy:
        publisher.publish(state, None)
    assert admitted(publisher, 1000) == expected
    publisher.publish(state, None)
    assert admitted(publisher, 1000) == 2  # as many as were answered


def test_the_cost_of_lists_is_that_of_late(monkeypatch):
    config = with_batches_of(2)
    state = small_state(config)
    publisher = Publisher(config, Streams())
    for list_s, expected in ((0.05, 2), (0.0095, 11)):
        slow_lists(monkeypatch, list_s)
        for _ in range(200):
            publisher.ask(Query("u1", "", 3))
            publisher.publish(state, None)
        assert admitted(publisher, 1000) == expected
        while publisher.busy:
            publisher.publish(state, None)


def test_what_is_done_between_two_batches_is_part_of_the_wait(monkeypatch):
    clock = [0.0]
    slow_lists(monkeypatch, 0.005)
    config = with_batches_of(2)
    state = small_state(config)
    publisher = Publisher(config, Streams())
    made = publisher.publish
    monkeypatch.setattr("engine.publisher.time.perf_counter", lambda: clock[0])
    admitted(publisher, 200)
    while publisher.busy:
        made(state, None)
        clock[0] += 0.04  # a step folds, too: two lists in 40 ms
    assert admitted(publisher, 1000) == 6  # in 100 ms


@pytest.mark.parametrize("limit", [1, 2, 8])
def test_streams_get_a_part_of_each_batch_however_many_calls_wait_and_calls_the_rest(limit):
    config = with_batches_of(limit)
    state = small_state(config)
    streams = Streams("u1", "u2", "u3", "u4", "u5")
    publisher = Publisher(config, streams)
    answers = [publisher.ask(Query("u1", "", 3)) for _ in range(60)]
    for _ in range(10):
        streams.mark((), model=True, catalog=False)
        for _ in range(4):
            publisher.publish(state, None)
    listed, answered = len(streams.lists), sum(answer.done() for answer in answers)
    assert listed >= 40 * max(1, limit // 4) // 2
    assert answered == min(60, 40 * limit - listed)


def test_streams_fill_what_calls_leave():
    config = with_batches_of(8)
    state = small_state(config)
    streams = Streams("u1", "u2", "u3", "u4", "u5")
    publisher = Publisher(config, streams)
    answer = publisher.ask(Query("u1", "", 3))
    streams.mark((), model=True, catalog=False)
    publisher.publish(state, None)
    assert answer.done() and len(streams.lists) == 5
    assert not publisher.busy


def test_while_calls_are_refused_the_event_loop_keeps_the_interpreter_for_longer():
    config = Config(**dict(small_config()) | {"serving": ServingConfig(max_queries=2, max_batch=2)})
    state, before_s = small_state(config), sys.getswitchinterval()
    publisher = Publisher(config, Streams())
    try:
        sys.setswitchinterval(0.0001)
        usual_s = sys.getswitchinterval()
        for refused in (0, 3, 1, 0, 2, 0, 0):
            for _ in range(2):
                publisher.ask(Query("u1", "", 3))
            for _ in range(refused):
                with pytest.raises(Overloaded):
                    publisher.ask(Query("u1", "", 3))
            publisher.publish(state, None)
            assert (sys.getswitchinterval() > usual_s) == (refused > 0)
        assert sys.getswitchinterval() == usual_s
    finally:
        sys.setswitchinterval(before_s)


@pytest.mark.parametrize("limit", [1, 2, 8])
def test_calls_that_wait_for_a_record_keep_no_other_call_from_its_list(limit):
    serving = ServingConfig(max_queries=3, max_waiting=500, max_batch=limit)
    config = Config(**dict(small_config()) | {"serving": serving})
    state = small_state(config)
    publisher = Publisher(config, Streams())
    end = state.positions[state.events_topic, 0]
    held = [publisher.ask(Query("u1", "", 3), Position(state.events_topic, 0, end)) for _ in range(500)]
    with pytest.raises(Overloaded, match="at most 500 calls may wait for a record"):
        publisher.ask(Query("u1", "", 3), Position(state.events_topic, 0, end))
    for _ in range(5):  # their record does not come
        plain = [publisher.ask(Query("u2", "", 3)) for _ in range(3)]
        while publisher.busy:
            publisher.publish(state, None)
        assert all(answer.result(0).items for answer in plain)
    assert not any(answer.done() for answer in held)
    state.fold(decoded(purchases(1), first_offset=end))
    for _ in range(60):  # it comes, and all 500 lists are due
        plain = [publisher.ask(Query("u2", "", 3)) for _ in range(min(3, limit))]
        for _ in range(2 * len(plain)):
            publisher.publish(state, None)
        assert all(answer.result(0).items for answer in plain)
    while publisher.busy:
        publisher.publish(state, None)
    assert all(answer.result(0).items for answer in held)
