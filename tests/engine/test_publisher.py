"""What the publisher remembers; the lists that it makes are in test_pipeline.py."""

from __future__ import annotations

import sys
import time

import pytest
from prometheus_client import REGISTRY

from engine.config import Config, ServingConfig
from engine.events.batch import CatalogItem
from engine.pace import Allowance
from engine.publisher import Overloaded, Publisher
from engine.ranking.query import Cause, Position, Query
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


def test_lists_asked_for_together_are_made_at_once_and_are_those_of_each_alone():
    config = with_batches_of(2)
    state = small_state(config)
    publisher = Publisher(config, Streams())
    queries = [Query(f"u{at}", "", 3) for at in range(1, 8)]
    alone = [publisher.ask(queries[0]), publisher.ask(queries[0])]
    answers = publisher.ask_all(queries)
    while not any(answer.done() for answer in answers):
        publisher.publish(state, None)
    assert all(answer.done() for answer in (*alone, *answers))
    made = [recommend([query], state, None, config.ranking)[0] for query in queries]
    assert [answer.result() for answer in answers] == made


def test_of_lists_asked_for_together_one_that_is_taken_back_costs_the_others_nothing():
    config = with_batches_of(2)
    publisher = Publisher(config, Streams())
    first, second, third = publisher.ask_all([Query(f"u{at}", "", 3) for at in range(3)])
    assert second.cancel()
    while publisher.busy:
        publisher.publish(small_state(config), None)
    assert first.result().items and third.result().items and second.cancelled()


def test_all_that_is_asked_for_together_may_wait_or_nothing_of_it():
    config = Config(**dict(small_config()) | {"serving": ServingConfig(max_queries=10)})
    publisher = Publisher(config, Streams())
    some = [Query("u1", "", 3)] * 6
    publisher.ask_all(some)
    with pytest.raises(Overloaded, match="at most 10 calls may wait"):
        publisher.ask_all(some)
    publisher.ask_all(some[:4])
    with pytest.raises(Overloaded):
        publisher.ask(some[0])


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
        streams.mark((), model=True)
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
    streams.mark((), model=True)
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


def record_of(item: str, title: str) -> CatalogItem:
    return CatalogItem(item, title, ("c1",))


def test_catalog_changes_are_told_once_for_many_records_and_only_where_a_record_says_something_new():
    state, streams = small_state(CONFIG), Streams("u1")
    publisher = Publisher(CONFIG, streams)
    publisher.publish(state, None)
    for title in ("new", "newer", "newer"):
        batch = decoded([], items=[record_of(ITEMS[1], title), record_of(ITEMS[2], title)])
        publisher.mark(batch, state.fold(batch), live=True)
    publisher.publish(state, None)
    assert [[state.items.id_of(row) for row in change.rows] for change in streams.changes] == [[ITEMS[1], ITEMS[2]]]
    again = decoded([], items=[record_of(ITEMS[1], "newer")])
    publisher.mark(again, state.fold(again), live=True)
    publisher.publish(state, None)
    assert len(streams.changes) == 1


def test_lists_that_the_catalog_asks_for_take_their_share_of_the_time_and_events_and_calls_go_on(monkeypatch):
    worked_s, now_s = [0.0], [0.0]

    def make(queries, *rest):
        worked_s[0] += 0.2 * len(queries)
        return recommend(queries, *rest)

    monkeypatch.setattr("engine.publisher.recommend", make)
    monkeypatch.setattr("engine.publisher.time.thread_time", lambda: worked_s[0])
    state, streams = small_state(CONFIG), Streams("u1", "u2", "u3")
    publisher = Publisher(CONFIG, streams)
    publisher._catalog_time = Allowance(0.05, 1.0, 2.0, lambda: now_s[0])
    publisher.publish(state, None)

    def lists_of(seconds: int) -> list[Cause]:
        streams.lists.clear()
        for _ in range(10 * seconds):
            now_s[0] += 0.1
            batch = decoded([], items=[record_of(ITEMS[1], f"title at {now_s[0]}")])
            publisher.mark(batch, state.fold(batch), live=True)
            publisher.publish(state, None)
        return [cause for _, cause, _ in streams.lists]

    assert len(lists_of(10)) in range(7, 10), "one second saved up, and a twentieth of ten"
    assert len(lists_of(100)) in range(24, 28), "a twentieth of a hundred"
    changes = len(streams.changes)
    publisher._catalog_time.spend(1000.0)
    streams.mark(["u1"], model=False)
    answer = publisher.ask(Query("u2", "", 3))
    assert lists_of(10) == [Cause.EVENTS] and answer.done()
    assert len(streams.changes) == changes, "not even looked for while there is no time"
    streams.mark_catalog(None)
    assert lists_of(10) == [], "told before, and no time to make the list"


def test_lists_for_the_catalog_come_a_few_at_a_time_so_that_a_call_waits_for_few_of_them():
    config = Config(**dict(small_config()) | {"serving": ServingConfig(max_batch=64)})
    state, streams = small_state(config), Streams(*(f"u{number}" for number in range(50)))
    publisher = Publisher(config, streams)
    publisher.publish(state, None)
    streams.mark_catalog(None)
    made = []
    while publisher.busy or not made:
        answer = publisher.ask(Query("u1", "", 3))
        before = len(streams.lists)
        publisher.publish(state, None)
        assert answer.done()
        made.append(len(streams.lists) - before)
    assert made[:4] == [16, 16, 16, 2]
    streams.mark([f"u{number}" for number in range(50)], model=False)
    publisher.publish(state, None)
    assert len(streams.lists) == 100, "lists for events wait for nothing"


def test_a_deletion_is_told_where_other_changes_must_wait_for_their_time():
    state, streams = small_state(CONFIG), Streams("u1")
    publisher = Publisher(CONFIG, streams)
    publisher._catalog_time.spend(1.0)
    for record in (record_of(ITEMS[1], "new"), CatalogItem(ITEMS[2], deleted=True)):
        assert streams.changes == []
        batch = decoded([], items=[record])
        publisher.mark(batch, state.fold(batch), live=True)
        publisher.publish(state, None)
    assert [[state.items.id_of(row) for row in change.rows] for change in streams.changes] == [[ITEMS[1], ITEMS[2]]]
    publisher._catalog_time.spend(2.0)
    batch = decoded([], items=[CatalogItem(ITEMS[3], deleted=True)])
    publisher.mark(batch, state.fold(batch), live=True)
    publisher.publish(state, None)
    assert len(streams.changes) == 1, "the debt is at its limit"


def test_it_is_busy_as_long_as_the_streams_are_to_be_told_more_of_the_catalog_and_there_is_time(monkeypatch):
    monkeypatch.setattr("engine.catalog_watch._AT_ONCE", 1)
    state, streams = small_state(CONFIG), Streams()
    publisher = Publisher(CONFIG, streams)
    publisher.publish(state, None)
    batch = decoded([], items=[record_of(item, "new") for item in ITEMS[:3]])
    publisher.mark(batch, state.fold(batch), live=True)
    told = []
    while publisher.busy or not told:
        publisher.publish(state, None)
        told.append(len(streams.changes))
    assert told == [1, 2, 3]
    publisher.mark(again := decoded([], items=[record_of(ITEMS[0], "newer")]), state.fold(again), live=True)
    publisher._catalog_time.spend(1000.0)
    publisher.publish(state, None)
    assert not publisher.busy and len(streams.changes) == 3, "there is no time for it"


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_lists_are_counted_by_what_ordered_them_and_empty_ones_apart():
    publisher, made = Publisher(CONFIG, Streams()), sample("ousel_lists_total", origin="popularity")
    empty = sample("ousel_lists_empty_total")
    publisher.ask(Query("nobody", "", 3))
    publisher.publish(small_state(CONFIG), None)
    publisher.ask(Query("nobody", "", 3, categories=("none has it",)))
    publisher.publish(small_state(CONFIG), None)
    assert sample("ousel_lists_total", origin="popularity") == made + 2
    assert sample("ousel_lists_empty_total") == empty + 1


@pytest.mark.parametrize("live", [True, False])
def test_a_list_is_judged_by_the_next_event_of_its_user_unless_the_log_is_replayed(live):
    publisher, state = Publisher(CONFIG, Streams()), small_state(CONFIG)
    answer = publisher.ask(Query("nobody", "", 3))
    publisher.publish(state, None)
    judged, hits = (sample(f"ousel_live_{name}_total", version="0") for name in ("judged", "hits"))
    wanted = answer.result().items[1].item_id
    batch = decoded([("nobody", "", wanted, 0, int(time.time() * 1000) + 1000)])
    publisher.mark(batch, state.fold(batch), live=live)
    assert sample("ousel_live_judged_total", version="0") == judged + live
    assert sample("ousel_live_hits_total", version="0") == hits + live
