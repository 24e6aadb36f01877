"""A tombstone whose key is a JSON string deletes the item of that string, unless the literal text is an item itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import EventsConfig, StateConfig
from engine.events.batch import CatalogItem, QuotedTombstone
from engine.state.state import State
from tests.engine.logs import batch

TOMBSTONE = QuotedTombstone('"a"', deleted=True, named_id="a")
PLAIN, LITERAL = CatalogItem("a", "plain"), CatalogItem('"a"', "literal")


def records_of(*batches: list[CatalogItem], max_items: int = 8) -> dict[str, str | None]:
    """Titles by item, None where it is deleted, after these batches."""
    state = State(StateConfig(content_dim=8, max_items=max_items), EventsConfig())
    for items in batches:
        state.fold(batch([], items))
    return {record.item_id: None if record.deleted else record.title for record in state.catalog.records()}


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    ("items", "want"),
    [
        ([PLAIN, TOMBSTONE], {"a": None}),
        ([TOMBSTONE], {"a": None}),
        ([TOMBSTONE, PLAIN], {"a": "plain"}),
        ([TOMBSTONE, LITERAL], {"a": None, '"a"': "literal"}),
        ([PLAIN, LITERAL, TOMBSTONE], {"a": "plain", '"a"': None}),
        ([PLAIN, LITERAL, TOMBSTONE, TOMBSTONE], {"a": "plain", '"a"': None}),
        ([LITERAL, TOMBSTONE, PLAIN, TOMBSTONE], {'"a"': None, "a": "plain"}),
    ],
)
def test_the_literal_id_is_deleted_only_where_the_catalog_has_a_record_of_it(
    items: list[CatalogItem], want: dict[str, str | None], split: bool
) -> None:
    assert records_of(*([[item] for item in items] if split else [items])) == want


def test_an_item_that_only_events_name_literally_has_no_record() -> None:
    state = State(StateConfig(content_dim=8), EventsConfig())
    state.items.add(['"a"'])
    state.fold(batch([], [PLAIN, TOMBSTONE]))
    assert [(record.item_id, record.deleted) for record in state.catalog.records()] == [("a", True)]


@given(
    st.lists(st.sampled_from([PLAIN, LITERAL, TOMBSTONE, CatalogItem("b"), CatalogItem("c")]), max_size=12),
    st.lists(st.integers(0, 4), max_size=5),
)
def test_records_that_make_room_for_others_count_at_their_moment_in_the_log(
    items: list[CatalogItem], lengths: list[int]
) -> None:
    cuts, at = [], 0
    for length in lengths:
        cuts.append(items[at : at + length])
        at += length
    cuts.append(items[at:])
    assert records_of(*cuts, max_items=2) == records_of(*([item] for item in items), max_items=2)
