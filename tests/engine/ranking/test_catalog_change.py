"""Which lists a catalog change concerns, against the plainest oracle: all lists made before it and after it."""

from __future__ import annotations

import dataclasses
import random
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.catalog_watch import CatalogWatch
from engine.config import RankingConfig
from engine.events.batch import CatalogItem
from engine.ranking import recommender
from engine.ranking.catalog_change import CatalogChange
from engine.ranking.list_bases import ListBases, Place
from engine.ranking.query import Query
from engine.ranking.recommender import recommend
from engine.state.state import State
from tests.engine.logs import HOUR_MS, Line, batch
from tests.engine.worlds import NOW_MS, USERS, small_config, small_generation

ITEMS = [f"i{at:02}" for at in range(40)]
LATE = [f"late{at}" for at in range(8)]  # known to no model, and to nobody before their first record
CONFIG = small_config().model_copy(
    update={
        "ranking": RankingConfig(index_candidates=4, popular_candidates=2, neighbor_sources=1, entity_candidates=2),
        "state": small_config().state.model_copy(update={"popular": 8}),
    }
)
QUERIES = [
    *(Query(user, "", 3) for user in USERS),
    *(Query(user, "", 2, exclude_history=True) for user in USERS[:2]),
    Query("u0", "", 3, categories=("c1",)),
    Query("u1", "", 2, categories=("c0", "c2")),
    Query("u2", "", 12),
    Query("u3", "", 2, exclude_item_ids=("i03", "i04")),
    Query("nobody", "", 3),
    Query("nobody", "", 2, categories=("c1",)),
    Query("nobody", "", 30),
    Query("nobody", "", 30, categories=("c2",)),
    Query("nobody", "", 2, exclude_item_ids=("i00", "i01")),
]


class World:
    """A shop at a time that tests move, its streams' lists, and what the engine would tell the streams."""

    def __init__(self, seed: int, *, modelled: bool) -> None:
        self.chance = random.Random(seed)
        self.now_ms = NOW_MS
        self.generation = None
        self.offset = 0
        self.state = State(CONFIG.state, CONFIG.events)
        self.watch = CatalogWatch()
        self.pass_time()
        self.fold(events=[self.event() for _ in range(60)])
        self.fold(items=[self.record(item) for item in ITEMS])
        if modelled:
            self.generation = small_generation(CONFIG, self.state)
        self.told()

    def fold(self, *, items=(), events=()) -> None:
        folded = self.state.fold(batch(events, items))
        if self.generation:
            self.generation.follow(self.state, folded)
        self.watch.note(folded.catalog.numpy())

    def pass_time(self) -> None:
        while (timed := self.state.pass_time(self.now_ms, 2)) is not None:
            if self.generation:
                self.generation.follow(self.state, timed)
            self.watch.note_timed(timed.timed.numpy())

    def event(self) -> Line:
        self.offset += 1
        line = Line(
            user=self.chance.choice(USERS), item=self.chance.choice(ITEMS), kind=7, time_ms=NOW_MS, offset=self.offset,
            event_id=f"e{self.offset}",
        )  # fmt: skip
        return line._replace(item="", kind=0, target=self.chance.choice(USERS)) if self.chance.random() < 0.1 else line

    def record(self, item: str) -> CatalogItem:
        chance = self.chance
        if chance.random() < 0.25:
            return CatalogItem(item, deleted=True)
        return CatalogItem(
            item,
            f"Title {chance.randrange(3)} of {item}",
            self.categories(item),
            available_from_ms=NOW_MS + chance.choice([-1, 1]) * HOUR_MS if chance.random() < 0.2 else None,
            available_until_ms=NOW_MS + chance.choice([-1, 1, 2]) * HOUR_MS if chance.random() < 0.2 else None,
        )

    def categories(self, item: str) -> tuple[str, ...]:
        """As a rule the ones that the item has: records of another title or time are the most frequent."""
        row = self.state.items.get(item)
        if row is not None and row in self.state.catalog and self.chance.random() < 0.6:
            return self.state.catalog.categories[row]
        return tuple(self.chance.sample(["c0", "c1", "c2"], self.chance.randrange(3)))

    def settle(self) -> None:
        """Lets embeddings follow their neighbors: a change of the catalog is compared with nothing else going on."""
        while self.generation and self.generation.embedder.backlog:
            self.generation.spread(self.state)

    def shows_what_is_gone(self, ranking, change: CatalogChange) -> bool:
        rows = self.state.items.find([item.item_id for item in ranking.items]).numpy()
        gone = rows[~self.state.catalog.servable(rows, self.now_ms)]
        return bool(np.isin(gone, change.rows).any())

    def lists(self):
        return self.lists_of(QUERIES)

    def lists_of(self, queries):
        recommender.time = SimpleNamespace(time=lambda: self.now_ms / 1000)
        try:
            return recommend(queries, self.state, self.generation, CONFIG.ranking)
        finally:
            recommender.time = __import__("time")

    def told(self) -> CatalogChange | None:
        return self.watch.take(self.state, self.generation) if self.watch.look(self.state) else None

    def change(self) -> None:
        """Something happens to the catalog, and perhaps some events at the same time."""
        kind = self.chance.random()
        if kind < 0.15:
            self.now_ms += HOUR_MS // 2
            self.pass_time()
            return
        item = self.chance.choice(ITEMS + LATE)
        self.fold(items=[self.record(item) for _ in range(1 if kind < 0.8 else 4)])


def shown(rankings) -> list[list[tuple[str, str]]]:
    return [[(item.item_id, item.title) for item in ranking.items] for ranking in rankings]


def kept(rankings) -> tuple[ListBases, dict[Place, int]]:
    """The bases of these lists, and which is where."""
    bases = ListBases()
    return bases, {bases.put(ranking.basis): at for at, ranking in enumerate(rankings)}


def compare(world: World) -> tuple[set[int], set[int]]:
    """Streams that were told of one change, and those whose lists it changed."""
    world.fold(events=[world.event() for _ in range(world.chance.randrange(3))])
    world.settle()
    before = world.lists()
    world.change()
    change = world.told()
    after = world.lists()
    differ = {at for at, (old, new) in enumerate(zip(shown(before), shown(after), strict=True)) if old != new}
    if change is None:
        return set(), differ
    bases, places = kept(before)
    told = {places[place] for place in change.concerns(bases)}
    listed = [{item.item_id for item in ranking.items} for ranking in after]
    forbidden = {places[place] for place in change.forbids(bases)}
    assert forbidden == {at for at, ranking in enumerate(before) if world.shows_what_is_gone(ranking, change)}
    for at in forbidden:
        assert {item.item_id for item in before[at].items} - listed[at]
    return told, differ


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), modelled=st.booleans())
def test_every_list_that_a_catalog_change_would_alter_is_told_of_it(seed, modelled):
    world = World(seed, modelled=modelled)
    for _ in range(25):
        told, differ = compare(world)
        assert differ <= told


def test_a_deleted_item_takes_no_place_among_the_candidates_of_a_category():
    world = World(0, modelled=True)
    query = Query("u0", "", 2, categories=("late",))
    deleted = [
        item
        for item in LATE
        if not world.fold(items=[CatalogItem(item, "t", ("late",)), CatalogItem(item, deleted=True)])
    ]
    [ranking] = recommend([query], world.state, world.generation, CONFIG.ranking)
    assert not set(world.state.items.find(deleted).tolist()) & set(ranking.basis.rows.tolist())
    assert len(world.state.catalog.members(["late"])) == len(LATE)


def test_an_item_whose_time_passes_during_the_call_takes_no_place_among_the_candidates_of_a_category():
    world = World(0, modelled=True)
    ended = LATE[:6]
    for item in LATE:
        world.fold(items=[CatalogItem(item, "t", ("late",), available_until_ms=NOW_MS + 1 if item in ended else None)])
    world.pass_time()
    world.now_ms = NOW_MS + HOUR_MS  # and nobody has let the time pass yet
    [ranking] = world.lists_of([Query("u0", "", 2, categories=("late",))])
    assert {item.item_id for item in ranking.items} == set(LATE) - set(ended)
    assert not set(world.state.items.find(ended).tolist()) & set(ranking.basis.rows.tolist())


@pytest.mark.parametrize("modelled", [False, True])
def test_an_item_that_may_not_be_shown_yet_concerns_no_list(modelled):
    world = World(0, modelled=modelled)
    # The state keeps 8 popular items ready, and a list that asks for more of them counts as concerned by any item.
    queries = [Query(user, "", 3, categories=categories) for user in (*USERS, "nobody") for categories in ((), ("c1",))]
    if not modelled:
        queries.append(Query("nobody", "", 60, categories=("c1",)))  # which has room
    bases, _ = kept(world.lists_of(queries))
    world.fold(items=[CatalogItem("late0", "t", ("c0", "c1", "c2"), available_from_ms=NOW_MS + HOUR_MS)])
    world.settle()
    row = np.array([world.state.items.get("late0")])
    assert CatalogChange.of(row, np.zeros(1, np.bool_), world.state, world.generation).concerns(bases) == []


def test_a_change_that_moves_no_item_concerns_the_lists_that_show_it_and_few_that_only_weigh_it():
    world = World(0, modelled=True)
    told = shows = weighs = 0
    for item in ITEMS:
        row = world.state.items.get(item)
        record = world.state.catalog.record(row)
        if not world.state.catalog.servable(np.array([row]), world.now_ms).all():
            continue
        before = world.lists()
        bases, _ = kept(before)
        world.fold(items=[dataclasses.replace(record, available_until_ms=2 * NOW_MS)])
        world.settle()
        change = world.told()
        shown_by = sum(item in {one.item_id for one in ranking.items} for ranking in before)
        told, shows = told + len(change.concerns(bases)), shows + shown_by
        weighs += sum(row in ranking.basis.rows.tolist() for ranking in before) - shown_by
    assert shows > 20 and weighs > 40
    assert shows <= told <= shows + 0.5 * weighs


@pytest.mark.parametrize("modelled", [False, True])
def test_most_lists_that_are_told_of_a_change_do_change(modelled):
    told, differ, steps = 0, 0, 0
    for seed in range(6):
        world = World(seed, modelled=modelled)
        for _ in range(25):
            one, other = compare(world)
            told, differ, steps = told + len(one), differ + len(other), steps + len(QUERIES)
    assert differ > 50
    assert told < 0.5 * steps, "of all lists, made again at each change"
    assert told < 4 * differ, "of lists in so small a shop that most items are candidates of many"


@pytest.mark.parametrize("modelled", [False, True])
def test_a_change_of_nothing_and_one_that_nobody_listens_to_concern_no_list(modelled):
    world = World(0, modelled=modelled)
    bases, _ = kept(world.lists())
    world.change()
    change = world.told()
    assert change.concerns(ListBases()) == change.forbids(ListBases()) == []
    nothing = CatalogChange.of(change.rows[:0], change.altered[:0], world.state, world.generation)
    assert nothing.concerns(bases) == nothing.forbids(bases) == []
