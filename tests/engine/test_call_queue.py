"""Calls for wide lists beside calls for usual ones."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from engine.call_queue import CallQueue, weight_of
from engine.config import Config, RankingConfig, ServingConfig
from engine.publisher import Overloaded, Publisher
from engine.ranking.query import Query
from engine.ranking.recommender import recommend
from engine.waiting import Call
from tests.engine.test_pipeline import Streams
from tests.engine.worlds import ITEMS, USERS, small_config, small_generation, small_state

MANY = tuple(f"left out {at}" for at in range(1000))
WIDE = Query("u1", "", 1000, exclude_item_ids=MANY)


def queue(usual: int, wide: int, weight: int) -> CallQueue:
    calls = CallQueue()
    for _ in range(usual):
        calls.add([Call(Query("u1", "", 20), None, Future())], 1)
    for _ in range(wide):
        calls.add([Call(WIDE, None, Future())], weight)
    return calls


def test_a_call_weighs_as_much_as_its_candidates():
    ranking = RankingConfig()
    for query, weight in (
        (Query("u1", "", 20), 1),
        (Query("u1", "", 100), 1),
        (Query("u1", "", 20, exclude_history=True), 1),
        (Query("u1", "", 1000), 8),
        (Query("u1", "", 20, exclude_item_ids=MANY), 8),
        (WIDE, 16),
    ):
        assert weight_of(query, 128, ranking) == weight


@pytest.mark.parametrize(("limit", "weight"), [(64, 16), (8, 16), (1, 4), (64, 2)])
def test_wide_calls_take_a_quarter_of_what_is_done_while_others_wait(limit, weight):
    calls = queue(10_000, 1000, weight)
    usual = wide = 0
    while usual + wide * weight < 4000:
        taken, cost = calls.take(limit)
        now_wide = sum(call.query is WIDE for call in taken)
        assert cost == len(taken) - now_wide + weight * now_wide <= max(limit, weight)
        usual, wide = usual + len(taken) - now_wide, wide + now_wide
    assert 800 <= wide * weight <= 1000 + max(limit, weight)
    assert calls.weight == 10_000 - usual + (1000 - wide) * weight


def test_calls_that_wait_together_are_taken_together_and_weigh_as_much_as_all_of_them():
    calls = queue(100, 0, 1)
    together = [Call(Query(f"u{at}", "", 20), None, Future()) for at in range(40)]
    calls.add(together, 40)
    assert (len(calls), calls.usual, calls.weight) == (140, 100, 140)
    taken = [calls.take(64)[0] for _ in range(3)]
    assert [len(one) for one in taken] == [64, 64, 12]
    assert [sum(call in together for call in one) for one in taken] == [0, 40, 0]
    assert len(calls) == calls.weight == 0


def test_wide_calls_take_all_of_it_where_nobody_else_waits_and_save_nothing_up_while_none_wait():
    calls = queue(0, 10, 16)
    assert [len(calls.take(64)[0]) for _ in range(4)] == [4, 4, 2, 0]
    for _ in range(100):
        calls.take(64)
    late = queue(1000, 0, 16)
    for _ in range(10):
        late.take(64)
    for _ in range(100):
        late.add([Call(WIDE, None, Future())], 16)
    assert sum(call.query is WIDE for call in late.take(64)[0]) == 1


def test_wide_calls_that_wait_keep_no_usual_call_from_its_list():
    serving = ServingConfig(max_batch=8, max_wait_ms=100)
    config = Config(**dict(small_config()) | {"serving": serving})
    state, publisher = small_state(config), Publisher(config, Streams())
    publisher.ask(Query("u1", "", 3))
    publisher.publish(state, None)
    publisher._spent_s, publisher._made = 0.01, 1.0  # a list takes 10 ms
    refused = 0
    for _ in range(100):
        try:
            publisher.ask(WIDE)
        except Overloaded as error:
            refused += 1
            assert error.retry_after_ms == 100
            said = str(error)
    assert refused > 90
    # Few calls wait, and each costs as much as many: the refusal must not speak of so many calls.
    assert said == (
        f"calls that cost as much as {publisher._calls.wide_weight} usual ones wait, more than get a list in 100 ms,"
        " try again later"
    )
    plain = [publisher.ask(Query("u2", "", 3)) for _ in range(6)]
    publisher.publish(state, None)
    assert all(answer.done() for answer in plain)


@pytest.mark.parametrize("modelled", [True, False])
def test_a_list_is_the_same_whatever_it_is_made_with(modelled):
    config = small_config()
    ranking = RankingConfig(index_candidates=4, popular_candidates=2, neighbor_sources=1)
    state = small_state(config)
    generation = small_generation(config, state) if modelled else None
    queries = [
        *(Query(user, "", 3) for user in USERS),
        Query("u1", "", 25),
        Query("u2", "", 3, exclude_history=True),
        Query("u3", "", 3, exclude_item_ids=tuple(ITEMS[:9])),
        Query("nobody", "", 20),
    ]
    together = recommend(queries, state, generation, ranking)
    for query, made in zip(queries, together, strict=True):
        (alone,) = recommend([query], state, generation, ranking)
        assert [item.item_id for item in alone.items] == [item.item_id for item in made.items]
