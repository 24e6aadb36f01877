"""Law 9, the half that is about room: a list holds k items, or all that may be shown to its query, and no others.

Whatever is deleted, expired, not yet available or filtered: that takes no place of what may be shown, neither among the
candidates nor in the list.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import patch

from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.config import RankingConfig
from engine.events.batch import CatalogItem
from engine.generation import Frozen, Generation, build_generation
from engine.ranking import recommender
from engine.ranking.query import Origin, Query, Ranking, Source
from engine.state.state import State
from tests.engine.logs import HOUR_MS, Line, batch
from tests.engine.models import small_weights
from tests.engine.worlds import NOW_MS, small_config

USERS = ["ann", "bob", "cid"]
ITEMS = [f"i{at:02}" for at in range(14)]  # The last four are in no catalog unless a record comes for them.
CATEGORIES = ["c0", "c1"]
HISTORY = 3
# All cuts are narrow: few candidates of each source, and a ready list of few popular items.
CONFIG = small_config().model_copy(
    update={
        "state": small_config().state.model_copy(update={"popular": 4, "history": HISTORY}),
        "ranking": RankingConfig(
            index_candidates=1, popular_candidates=1, neighbor_sources=1, friend_candidates=1, entity_candidates=1
        ),
    }
)

hours = st.none() | st.integers(-3, 6)
categories = st.lists(st.sampled_from(CATEGORIES), max_size=2).map(tuple)
records = st.tuples(st.sampled_from(ITEMS[:10]), st.just("a title"), categories, st.just(()), hours, hours).map(
    lambda fields: CatalogItem(*fields)
)
deletions = st.sampled_from(ITEMS).map(lambda item: CatalogItem(item, deleted=True))
lines = st.one_of(
    st.tuples(st.sampled_from(USERS), st.sampled_from(ITEMS)).map(lambda it: Line(user=it[0], item=it[1], kind=7)),
    st.tuples(st.sampled_from(USERS), st.sampled_from(USERS)).map(lambda it: Line(user=it[0], target=it[1])),
    st.sampled_from(ITEMS).map(lambda item: Line(item=item, target="an entity")),
)
# Hours that pass, and how many pieces of what is due then the engine has come to; the clock may also be set back.
times = st.tuples(st.integers(-4, 4), st.none() | st.integers(0, 3))
steps = st.lists(
    st.one_of(
        st.lists(records | deletions, min_size=1, max_size=8), st.lists(lines, min_size=1, max_size=8), times, st.none()
    ),
    min_size=1,
    max_size=14,
)
queries = st.builds(
    Query,
    st.sampled_from([*USERS, "nobody"]),
    st.just(""),
    st.integers(1, 16),
    exclude_history=st.booleans(),
    categories=st.lists(st.sampled_from([*CATEGORIES, "no such"]), max_size=2).map(tuple),
    exclude_item_ids=st.lists(st.sampled_from([*ITEMS, "no such"]), max_size=6).map(tuple),
)


class Shop:
    """A state and perhaps a model, and beside them the plainest notes of what should be shown."""

    def __init__(self, *, catalog_only: bool) -> None:
        self.catalog_only = catalog_only
        self.now_ms = NOW_MS
        self.state = State(CONFIG.state, CONFIG.events, catalog_only=catalog_only)
        self.generation: Generation | None = None
        self.offset = 0
        self.record: dict[str, CatalogItem] = {}
        self.count: dict[str, int] = {}  # of events that name an item
        self.named: set[str] = set()  # by events and by relations
        self.histories: dict[str, deque[str]] = {}
        self.pass_time(None)

    def do(self, step: list[CatalogItem] | list[Line] | tuple[int, int | None] | None) -> None:
        if step is None:
            self.generation = build_generation(small_weights(ITEMS[:8]), 1, {}, Frozen.of(self.state), CONFIG)
        elif isinstance(step, tuple):
            self.now_ms += step[0] * HOUR_MS
            self.pass_time(step[1])
        elif isinstance(step[0], Line):
            self.fold(lines=[one for one in step if isinstance(one, Line)])
        else:
            self.fold(items=[self.timed(one) for one in step if isinstance(one, CatalogItem)])

    def timed(self, record: CatalogItem) -> CatalogItem:
        """A record whose times are hours since the begin."""
        first, last = record.available_from_ms, record.available_until_ms
        if first is not None and last is not None and first >= last:
            last = None  # The decoder refuses records like that.
        at = [None if hour is None else NOW_MS + hour * HOUR_MS for hour in (first, last)]
        return replace(record, available_from_ms=at[0], available_until_ms=at[1])

    def fold(self, *, items: list[CatalogItem] = [], lines: list[Line] = []) -> None:  # noqa: B006
        numbered = [line._replace(offset=self.offset + at, time_ms=NOW_MS) for at, line in enumerate(lines)]
        self.offset += len(lines)
        folded = self.state.fold(batch(numbered, items))
        if self.generation is not None:
            self.generation.follow(self.state, folded)
        self.record |= {item.item_id: item for item in items}
        for line in lines:
            if line.item:
                self.named.add(line.item)
            if line.item and not line.target:
                self.count[line.item] = self.count.get(line.item, 0) + 1
                self.histories.setdefault(line.user, deque(maxlen=HISTORY)).append(line.item)

    def pass_time(self, pieces: int | None) -> None:
        """Has the engine do some of what is due, in pieces of two items; None: all of it."""
        while pieces != 0:
            timed = self.state.pass_time(self.now_ms, 1)
            if timed is not None and self.generation is not None:
                self.generation.follow(self.state, timed)
            if self.settled and pieces is None:
                break
            pieces = None if pieces is None else pieces - 1

    @property
    def settled(self) -> bool:
        return self.state.availability.settled(self.now_ms)

    def available(self) -> Iterator[str]:
        """Items that may be shown now."""
        for item in ITEMS:
            record = self.record.get(item)
            if record is None:
                if item in self.named and not self.catalog_only:
                    yield item
            elif not record.deleted:
                begun = record.available_from_ms is None or record.available_from_ms <= self.now_ms
                over = record.available_until_ms is not None and record.available_until_ms <= self.now_ms
                if begun and not over:
                    yield item

    def may_list(self, query: Query) -> set[str]:
        found = set(self.available()) - set(query.exclude_item_ids)
        if query.exclude_history:
            found -= set(self.histories.get(query.user_id, ()))
        if query.categories:
            found = {item for item in found if item in self.record}
            found = {item for item in found if set(query.categories) & set(self.record[item].categories)}
        return found

    def list_of(self, query: Query) -> Ranking:
        with patch.object(recommender, "time", SimpleNamespace(time=lambda: self.now_ms / 1000)):
            (ranking,) = recommender.recommend([query], self.state, self.generation, CONFIG.ranking)
        return ranking


# An item's time comes, and the engine has not come to it yet: without a model, and with one.
COMES = [
    [CatalogItem("i00", "a title", available_from_ms=1), CatalogItem("i01")],
    [Line(user="ann", item="i01", kind=7)],
]
LATE = (2, 0)


@settings(max_examples=150, deadline=None)
@example(steps=[*COMES, LATE], asked=[Query("nobody", "", 3)], catalog_only=False)
@example(steps=[*COMES, None, LATE], asked=[Query("ann", "", 3)], catalog_only=True)
@given(steps=steps, asked=st.lists(queries, min_size=1, max_size=4), catalog_only=st.booleans())
def test_a_list_holds_k_items_or_all_that_may_be_shown_and_none_that_may_not(steps, asked, catalog_only):
    shop = Shop(catalog_only=catalog_only)
    for step in steps:
        shop.do(step)
        for query in asked:
            ranking, may = shop.list_of(query), shop.may_list(query)
            listed = [item.item_id for item in ranking.items]
            assert set(listed) <= may
            assert len(set(listed)) == len(listed) == min(query.k, len(may))
            scores = [item.score for item in ranking.items]
            assert scores == sorted(scores, reverse=True)


@settings(max_examples=100, deadline=None)
@given(steps=steps, asked=st.lists(queries, min_size=1, max_size=4), catalog_only=st.booleans())
def test_the_best_of_all_that_may_be_shown_are_listed_once_the_engine_has_come_to_what_is_due(
    steps, asked, catalog_only
):
    shop = Shop(catalog_only=catalog_only)
    for step in steps:
        shop.do(step)
        shop.pass_time(None)
        assert shop.state.availability.count == len(list(shop.available()))
        if shop.generation is not None:
            assert shop.generation.index.size == shop.state.availability.count
        for query in asked:
            ranking, may = shop.list_of(query), shop.may_list(query)
            if ranking.origin == Origin.MODEL:
                # The index finds as many as are asked for, so nothing is to be filled up.
                assert not any(Source.BACKFILL in item.sources for item in ranking.items)
            elif query.user_id == "nobody":
                # By popularity, of those without any event last.
                best = sorted(((shop.count.get(item, 0), item in shop.named) for item in may), reverse=True)
                counts = [(shop.count.get(item.item_id, 0), item.item_id in shop.named) for item in ranking.items]
                assert counts == best[: query.k]
