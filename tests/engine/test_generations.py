"""The generation that serves, the one before it at rest, and what both of them miss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.events.batch import CatalogItem
from engine.generations import Aside, Generations, Missed, RollBackRefused
from engine.state.state import Folded
from tests.engine.logs import decoded
from tests.engine.worlds import NOW_MS, purchases, small_config, small_generation, small_state

CONFIG = small_config()
USERS, ITEMS, EVENTS = 5, 7, 4


def a_batch(number: int) -> Folded:
    """A few events of the same few users and items, and what else a batch may change."""
    event = torch.arange(EVENTS)
    user, item = (event + number) % USERS, (event * number) % ITEMS
    columns = dict.fromkeys(Folded.__dataclass_fields__, event[:0])
    columns |= {"event": event, "user": user, "item": item, "previous": item.roll(1) - 1, "session": event.int()}
    columns |= {
        "timed": item[2:3],
        "catalog": item[:1],
        "stale_users": user[:1] + USERS,
        "new_items": item[1:2],
        "gone_users": user[1:2],
    }
    return Folded(**columns)


def sets(folded: Folded) -> dict[str, set[int]]:
    users, items = folded.user.tolist() + folded.stale_users.tolist(), folded.item.tolist() + folded.previous.tolist()
    return {
        "users": set(users), "items": set(items) - {-1}, "catalog": set(folded.catalog.tolist()),
        "new": set(folded.new_items.tolist()), "gone": set(folded.gone_users.tolist()),
        "timed": set(folded.timed.tolist()),
    }  # fmt: skip


def settled(generation, state):
    while generation.embedder.backlog:
        generation.spread(state)
    return generation


def assert_as_built_now(generation, state, seed):
    fresh, items = small_generation(CONFIG, state, seed=seed), len(state.items)
    settled(generation, state)
    assert torch.allclose(generation.embedder.items[:items], fresh.embedder.items[:items], atol=1e-5)
    assert torch.allclose(generation.embedder.users, fresh.embedder.users, atol=1e-5)
    query = fresh.embedder.items[:1].numpy()
    assert np.allclose(generation.index.search(query, 10).score, fresh.index.search(query, 10).score, atol=1e-5)


@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_what_is_missed_holds_each_row_once_and_is_taken_in_pieces(limit):
    missed, batches = Missed(), [a_batch(number) for number in range(300)]
    for one in batches:
        missed.add(one)
    assert len(missed) <= 3 * USERS + 4 * ITEMS
    parts = []
    while len(missed):
        before = len(missed)
        parts.append(missed.take(limit))
        assert before - len(missed) == min(limit, before)
    got = {name: set.union(*(sets(part)[name] for part in parts)) for name in sets(parts[0])}
    want = {name: set.union(*(sets(batch)[name] for batch in batches)) for name in got}
    assert got == want


@pytest.mark.parametrize("pieces", [1, 7, 10_000])
def test_a_generation_catches_up_piece_by_piece_while_events_come(pieces):
    state = small_state(CONFIG, events=40)
    log = purchases(120)
    aside = Aside(small_generation(CONFIG, state, seed=3), Missed())

    def fold(rows, offset, **more):
        aside.missed.add(state.fold(decoded(rows, offset, **more)))

    fold(log[40:80], 40, items=[CatalogItem("i05", deleted=True), CatalogItem("i98", "New")])
    aside.catch_up(state, pieces)
    fold(log[80:], 80)
    while aside.catch_up(state, pieces):
        pass
    assert_as_built_now(aside.generation, state, seed=3)


def test_rolling_back_makes_the_generation_before_serve_as_though_it_had_never_stopped():
    state, generations = small_state(CONFIG, events=40), Generations()
    log = purchases(120)
    for version in (1, 2):
        assert generations.adopt(state, Aside(small_generation(CONFIG, state, version, seed=version), Missed())) is None
    for at in (40, 80):
        generations.follow(state, state.fold(decoded(log[at : at + 40], at)))
    bad = generations.serving
    assert generations.roll_back(state) is bad
    assert (generations.serving.version, generations.versions, generations.newest) == (1, [1, 2, 1], 2)
    assert_as_built_now(generations.serving, state, seed=1)
    generations.follow(state, state.fold(decoded(purchases(140)[120:], 120)))
    assert_as_built_now(generations.serving, state, seed=1)


def test_a_generation_at_rest_computes_nothing():
    state, generations = small_state(CONFIG, events=40), Generations()
    for version in (1, 2):
        generations.adopt(state, Aside(small_generation(CONFIG, state, version, seed=version), Missed()))
    before = generations.previous.generation.embedder.items.clone()
    generations.follow(state, state.fold(decoded(purchases(80)[40:], 40)))
    assert torch.equal(generations.previous.generation.embedder.items, before)


def test_one_generation_is_kept_and_the_one_before_it_is_handed_back():
    state, generations = small_state(CONFIG), Generations()
    made = [small_generation(CONFIG, state, version) for version in (1, 2, 3)]
    dropped = [generations.adopt(state, Aside(one, Missed())) for one in made]
    assert dropped == [None, None, made[0]]
    assert generations.previous.generation is made[1]


def test_there_is_nothing_to_roll_back_to_before_the_second_model_nor_twice():
    state, generations = small_state(CONFIG), Generations()
    with pytest.raises(RollBackRefused, match="no generation before version 0"):
        generations.check_roll_back(None)
    for version in (1, 2):
        generations.adopt(state, Aside(small_generation(CONFIG, state, version), Missed()))
    with pytest.raises(RollBackRefused, match="expected_version must be 2, the one that serves, got 1"):
        generations.check_roll_back(1)
    assert generations.check_roll_back(2) is generations.previous
    generations.roll_back(state)
    with pytest.raises(RollBackRefused, match="no generation before version 1"):
        generations.check_roll_back(None)


@pytest.mark.parametrize("pieces", [1, 10_000])
def test_a_generation_that_is_built_or_at_rest_hears_of_items_whose_time_came_meanwhile(pieces):
    state = small_state(CONFIG)
    state.pass_time(NOW_MS, 100)
    state.fold(
        decoded([], items=[
            CatalogItem("i01", available_until_ms=NOW_MS + 10), CatalogItem("i02", available_from_ms=NOW_MS + 10),
            CatalogItem("i03", available_from_ms=NOW_MS + 20),
        ])
    )  # fmt: skip
    generations = Generations()
    generations.begin()
    built = Aside(small_generation(CONFIG, state), generations.building)
    generations.follow(state, state.pass_time(NOW_MS + 10, 100))
    while built.catch_up(state, pieces):
        pass
    assert_finds_what_may_be_shown(built.generation, state)
    generations.adopt(state, built)
    generations.begin()
    generations.adopt(state, Aside(small_generation(CONFIG, state, version=2), generations.building))
    generations.follow(state, state.pass_time(NOW_MS + 20, 100))
    assert_finds_what_may_be_shown(generations.serving, state)
    generations.roll_back(state)
    assert_finds_what_may_be_shown(generations.serving, state)


def assert_finds_what_may_be_shown(generation, state):
    rows = np.arange(len(state.items))
    found = generation.index.search(generation.embedder.items[:1].numpy(), len(rows)).row[0]
    assert set(found[found >= 0].tolist()) == set(rows[state.availability.now(rows)].tolist())
    assert 0 < generation.index.size < len(rows)
