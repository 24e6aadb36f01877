"""What the catalog's watch tells the streams of; whose lists that concerns is in ranking/test_catalog_change.py."""

from __future__ import annotations

import numpy as np

from engine import catalog_watch
from engine.catalog_watch import CatalogWatch
from engine.events.batch import CatalogItem
from engine.state.folded import NO_ROWS
from engine.state.state import State
from tests.engine.logs import Line, batch
from tests.engine.worlds import small_config

CONFIG = small_config()


class Shop:
    def __init__(self) -> None:
        self.now_ms = 1000
        self.state = State(CONFIG.state, CONFIG.events)
        self.watch = CatalogWatch()

    def changed(self, *records: CatalogItem) -> list[str]:
        """What is told after these records."""
        timed = self.state.pass_time(self.now_ms, 100)
        self.watch.note(self.state.fold(batch([], records)).catalog.numpy())
        self.watch.note_timed(timed.timed.numpy() if timed else NO_ROWS)
        if not self.watch.look(self.state):
            return []
        return [self.state.items.id_of(row) for row in self.watch.take(self.state, None).rows]


def test_a_record_changes_an_item_where_it_says_something_else_than_the_one_before():
    shop = Shop()
    one = CatalogItem("a", "Title", ("c1", "c2"), available_until_ms=9000)
    assert shop.changed(one, CatalogItem("b")) == ["a", "b"]
    assert shop.changed(one) == shop.changed(CatalogItem("b"), one) == []
    for other in (
        CatalogItem("a", "Other title", ("c1", "c2"), available_until_ms=9000),
        CatalogItem("a", "Title", ("c2", "c1"), available_until_ms=9000),
        CatalogItem("a", "Title", ("c1", "c2"), available_until_ms=8000),
        CatalogItem("a", "Title", ("c1", "c2"), available_from_ms=7000),
        CatalogItem("a", deleted=True),
    ):
        assert shop.changed(other) == ["a"]
        assert shop.changed(other) == []
        assert shop.changed(one) == ["a"]


def test_an_item_changes_at_the_times_from_which_and_until_which_it_is_available():
    shop = Shop()
    shop.changed(
        CatalogItem("both", available_from_ms=2000, available_until_ms=4000),
        CatalogItem("until", available_until_ms=3000),
        CatalogItem("past", available_until_ms=500),
    )
    told = {}
    for shop.now_ms in range(1000, 6000, 500):
        told[shop.now_ms] = shop.changed()
    assert {at: items for at, items in told.items() if items} == {2000: ["both"], 3000: ["until"], 4000: ["both"]}


def test_a_time_that_a_later_record_takes_back_changes_nothing():
    shop = Shop()
    shop.changed(CatalogItem("a", available_from_ms=2000), CatalogItem("b", available_from_ms=2000))
    assert shop.changed(CatalogItem("a", available_from_ms=3000), CatalogItem("b")) == ["a", "b"]
    shop.now_ms = 2500
    assert shop.changed() == []
    shop.now_ms = 3000
    assert shop.changed() == ["a"]


def test_items_that_a_snapshot_brought_change_at_their_times_too():
    shop = Shop()
    shop.state.restore_catalog([CatalogItem("a", available_from_ms=2000)], {}, 1)
    assert shop.changed() == []
    shop.now_ms = 2000
    assert shop.changed() == ["a"]


def test_rows_that_went_to_other_items_are_told_of():
    shop = Shop()
    shop.changed(CatalogItem("a", "Title"))
    (row,) = np.flatnonzero([name == "a" for name in shop.state.items.ids()])
    shop.state.items.remove(row)
    shop.state.catalog.remove(row)
    assert shop.changed(CatalogItem("other", "Title of another")) == ["other"]
    assert shop.state.items.get("other") == row


def test_many_changes_are_told_in_parts_each_once_and_the_first_first(monkeypatch):
    monkeypatch.setattr(catalog_watch, "_AT_ONCE", 2)
    shop, told = Shop(), []
    shop.changed(*(CatalogItem(item, "t") for item in "abcde"))
    while shop.watch.waiting:
        shop.watch.take(shop.state, None)
    shop.watch.note(shop.state.fold(batch([], [CatalogItem("b", "u"), CatalogItem("d", deleted=True)])).catalog.numpy())
    shop.watch.note(shop.state.fold(batch([], [CatalogItem("c", "u", ("c1",))])).catalog.numpy())
    while shop.watch.look(shop.state):
        assert shop.watch.forbids
        change = shop.watch.take(shop.state, None)
        told += zip(map(shop.state.items.id_of, change.rows), change.altered.tolist(), strict=True)
    assert told == [("b", False), ("d", True), ("c", True)] and not shop.watch.waiting and not shop.watch.forbids


def test_an_item_that_loses_its_record_is_told_of_where_only_the_catalog_is_shown():
    shop = Shop()
    config = CONFIG.state.model_copy(update={"max_items": 1})
    shop.state = State(config, CONFIG.events, catalog_only=True)
    assert shop.changed(CatalogItem("a", offset=0)) == ["a"]
    shop.state.fold(batch([Line("ann", item="a", kind=7)]))
    row = shop.state.items.get("a")
    assert shop.changed(CatalogItem("b", offset=1)) == ["b"], "its item is used, so the record stays"
    shop.state.records.unname([row])
    shop.state.catalog.remove(row)
    shop.state.catalog.revive(np.array([row]))
    shop.state.availability.judge(np.array([row]))
    shop.watch.note(np.array([row]))
    assert shop.watch.look(shop.state) and shop.watch.forbids
