"""Which items may be shown now, as records come and time passes."""

from __future__ import annotations

import pytest

from engine.events.batch import CatalogItem
from engine.state.state import State
from tests.engine.logs import Line, batch
from tests.engine.worlds import small_config

CONFIG = small_config()


class Shop:
    def __init__(self, now_ms: int = 1000, *, catalog_only: bool = False) -> None:
        self.state = State(CONFIG.state, CONFIG.events, catalog_only=catalog_only)
        self.offset = 0
        self.pass_time(now_ms)

    def fold(self, *items: CatalogItem, events: tuple[str, ...] = ()) -> None:
        lines = [Line("ann", item=item, offset=self.offset + at, kind=7) for at, item in enumerate(events)]
        self.offset += len(lines)
        self.state.fold(batch(lines, items))

    def pass_time(self, now_ms: int, limit: int = 100) -> set[str]:
        """The items that change thereby."""
        timed = self.state.pass_time(now_ms, limit)
        return {self.state.items.id_of(row) for row in timed.timed.tolist()} if timed else set()

    @property
    def shown(self) -> set[str]:
        rows = self.state.items.find([*filter(None, self.state.items.ids())]).numpy()
        shown = {self.state.items.id_of(row) for row in rows[self.state.availability.now(rows)].tolist()}
        assert self.state.availability.count == len(shown)
        assert {self.state.items.id_of(row) for row in self.state.popularity.top().tolist()} == shown
        return shown


def test_an_item_is_shown_from_its_time_on_and_until_its_time_and_waits_for_no_other():
    shop = Shop()
    shop.fold(
        CatalogItem("both", available_from_ms=2000, available_until_ms=4000),
        CatalogItem("until", available_until_ms=3000),
        CatalogItem("past", available_until_ms=500),
        CatalogItem("always"),
    )
    assert shop.shown == {"until", "always"} and shop.state.availability.waiting == 2
    assert shop.pass_time(1999) == set()
    assert shop.pass_time(2000) == {"both"} and shop.shown == {"until", "always", "both"}
    assert shop.pass_time(3000) == {"until"}
    assert shop.pass_time(9000) == {"both"} and shop.shown == {"always"}
    assert shop.state.availability.waiting == 0


def test_a_record_counts_at_once_and_takes_back_the_times_of_the_one_before():
    shop = Shop()
    shop.fold(CatalogItem("a", available_from_ms=2000), CatalogItem("b", available_from_ms=2000))
    shop.fold(CatalogItem("a", available_from_ms=3000), CatalogItem("b", deleted=True))
    assert shop.pass_time(2500) == set() and shop.shown == set()
    shop.fold(CatalogItem("a"))
    assert shop.shown == {"a"} and shop.pass_time(3000) == set()


def test_a_catalog_that_a_snapshot_brings_is_judged_by_the_time_as_it_is():
    shop = Shop()
    shop.state.restore_catalog(
        [CatalogItem("a", available_from_ms=2000), CatalogItem("b", available_until_ms=9)], {}, 2
    )
    assert shop.shown == set()
    assert shop.pass_time(2000) == {"a"}


def test_a_clock_that_is_set_back_brings_back_what_it_had_expired():
    shop = Shop(now_ms=100_000)
    shop.fold(CatalogItem("expires", available_until_ms=150_000), CatalogItem("comes", available_from_ms=150_000))
    assert shop.pass_time(10**12) == {"expires", "comes"}  # for a moment the clock was wrong
    assert shop.pass_time(101_000) == {"expires", "comes"} and shop.shown == {"expires"}
    assert shop.pass_time(150_000) == {"expires", "comes"} and shop.shown == {"comes"}
    assert shop.pass_time(149_500) == set(), "of less than a second it is waited for"


def test_many_items_whose_time_has_come_are_looked_at_in_parts():
    shop = Shop()
    shop.fold(*(CatalogItem(f"i{at}", available_until_ms=2000) for at in range(60)))
    parts = []
    while not shop.state.availability.settled(2000):
        parts.append(len(shop.pass_time(2000, limit=25)))
    assert parts == [25, 25, 10] and shop.shown == set()


@pytest.mark.parametrize("catalog_only", [False, True])
def test_an_item_that_only_events_name_is_shown_unless_the_catalog_must_have_it(catalog_only):
    shop = Shop(catalog_only=catalog_only)
    shop.fold(CatalogItem("real"), events=("undefined", "real", "late"))
    assert shop.shown == ({"real"} if catalog_only else {"real", "undefined", "late"})
    shop.fold(CatalogItem("late"))
    assert "late" in shop.shown
    shop.fold(CatalogItem("late", deleted=True))
    assert "late" not in shop.shown


def test_an_item_whose_record_had_to_make_room_is_none_of_the_catalog_any_more():
    state = CONFIG.state.model_copy(update={"max_items": 2})
    shop = Shop(catalog_only=True)
    shop.state = State(state, CONFIG.events, catalog_only=True)
    shop.fold(CatalogItem("a", offset=0), CatalogItem("b", offset=1), CatalogItem("c", offset=2))
    assert shop.shown == {"b", "c"}
