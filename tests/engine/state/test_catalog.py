from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.events.batch import CatalogItem
from engine.state.catalog import NO_GROUP, Catalog
from engine.state.catalog_records import CatalogRecords
from engine.state.content import HashedText
from engine.state.digest import catalog_digest

ROWS = 5


def new_catalog(rows: int = ROWS, limit: int = ROWS, features_dim: int = 0, content_dim: int = 32) -> Catalog:
    catalog = Catalog(HashedText(content_dim), features_dim, rows, CatalogRecords(limit, 2**30))
    catalog.grow(rows)
    return catalog


def catalog_of(*items: CatalogItem, features_dim: int = 0) -> Catalog:
    catalog = new_catalog(len(items), len(items), features_dim)
    catalog.fold(range(len(items)), items)
    return catalog


def test_similar_items_have_similar_content():
    milk = CatalogItem("1", "Whole milk", ("dairy", "milk"))
    skim = CatalogItem("2", "Skim milk", ("dairy", "milk"))
    nails = CatalogItem("3", "Steel nails", ("hardware",))
    content = catalog_of(milk, skim, nails).contents()
    assert torch.allclose(content.norm(dim=1), torch.ones(3))
    assert content[0] @ content[1] > 0.5 > content[0] @ content[2]


def test_given_features_follow_the_hashed_content():
    catalog = catalog_of(CatalogItem("1", features=(0.5, -2.0)), features_dim=2)
    assert catalog.contents()[0, 32:].tolist() == [0.5, -2.0]
    assert catalog.content_dim == 34


def test_an_item_is_servable_inside_its_window_only():
    catalog = catalog_of(CatalogItem("1", available_from_ms=10, available_until_ms=20))
    rows = np.array([0])
    assert [bool(catalog.servable(rows, now)[0]) for now in (9, 10, 19, 20)] == [False, True, True, False]


def test_deleted_until_a_later_record_brings_it_back():
    catalog = catalog_of(CatalogItem("1", "Milk"))
    rows = np.array([0])
    catalog.fold([0], [CatalogItem("1", deleted=True)])
    assert catalog.deleted(rows).all() and not catalog.servable(rows, 0).any()
    catalog.fold([0], [CatalogItem("1", "Oat milk")])
    assert catalog.servable(rows, 0).all() and catalog.title[0] == "Oat milk"


@given(
    told=st.lists(
        st.tuples(st.integers(0, ROWS - 1), st.lists(st.sampled_from("abc"), max_size=4), st.booleans()), max_size=12
    ),
    asked=st.lists(st.lists(st.sampled_from("abcd"), max_size=4), min_size=12, max_size=12),
)
def test_members_are_told_apart_at_any_time(told, asked):
    """The catalog keeps the members of a category in order once somebody asks, until a record changes them."""
    catalog, have = new_catalog(), {row: set() for row in range(ROWS)}
    for (row, categories, gone), wanted in zip(told, asked, strict=False):
        if gone:
            catalog.remove(row)
            have[row] = set()
        else:
            catalog.fold([row], [CatalogItem(str(row), "", tuple(categories))])
            have[row] = set(categories)
        assert catalog.members(wanted).tolist() == [row for row in range(ROWS) if have[row] & set(wanted)]


def test_members_follow_the_newest_record():
    catalog = catalog_of(CatalogItem("1", categories=("a", "b")), CatalogItem("2", categories=("b",)))
    assert catalog.members(["b"]).tolist() == [0, 1]
    catalog.fold([0], [CatalogItem("1", categories=("c",))])
    assert catalog.members(["a", "b"]).tolist() == [1]
    assert catalog.members(["c", "b"]).tolist() == [0, 1]
    assert catalog.members(["never"]).tolist() == []


def test_a_category_named_twice_in_a_record_counts_once():
    catalog = catalog_of(CatalogItem("1", categories=("a", "b", "a")))
    assert catalog.members(["a"]).tolist() == [0]
    catalog.fold([0], [CatalogItem("1", categories=("b",))])
    assert catalog.members(["a"]).tolist() == []
    assert catalog.members(["b"]).tolist() == [0]


def test_attributes_are_kept_with_the_record_and_are_part_of_the_digest():
    catalog = catalog_of(CatalogItem("1", attributes=(("price", "9.99"),)))
    assert catalog.records()[0].attributes == (("price", "9.99"),)
    digest = catalog_digest(catalog.records())
    catalog.fold([0], [CatalogItem("1", attributes=(("price", "8.99"),))])
    assert catalog_digest(catalog.records()) != digest
    catalog.fold([0], [CatalogItem("1", deleted=True, attributes=(("price", "8.99"),))])
    assert catalog.records()[0].attributes == ()


def test_an_item_known_from_events_alone_is_servable():
    catalog = new_catalog(1)
    assert catalog.servable(np.array([0]), 0).all()
    assert catalog.contents().abs().sum() == 0
    assert 0 not in catalog and len(catalog) == 0


item = st.builds(
    CatalogItem,
    item_id=st.just("x"),
    title=st.sampled_from(["", "Milk", "Oat milk"]),
    categories=st.lists(st.sampled_from("abc"), max_size=3).map(tuple),
    features=st.sampled_from([(), (0.5, -1.0)]),
    available_from_ms=st.sampled_from([None, 0, 10]),
    available_until_ms=st.sampled_from([None, 20]),
    deleted=st.booleans(),
)
log_of_items = st.lists(st.tuples(st.integers(0, ROWS - 1), item), max_size=25)


def seen(catalog: Catalog) -> dict:
    rows = np.arange(ROWS)
    return {
        "rows": catalog.rows(),
        "deleted": catalog.deleted(rows).tolist(),
        "servable": [catalog.servable(rows, now).tolist() for now in (-1, 0, 9, 10, 19, 20)],
        "members": {name: catalog.members([name]).tolist() for name in "abc"},
        "records": catalog.records(),
    }


@given(log=log_of_items, limit=st.integers(1, ROWS))
def test_holds_the_newest_record_of_the_items_updated_last(log, limit):
    catalog, oracle = new_catalog(limit=limit, features_dim=2), {}
    for row, one in log:
        oracle.pop(row, None)
        oracle[row] = one
        dropped = catalog.fold([row], [one])
        assert len(dropped) == (len(oracle) > limit)
        for gone in dropped:
            assert gone == next(iter(oracle))
            del oracle[gone]
            assert catalog.deleted(np.array([gone])).all() and gone not in catalog
        assert catalog.rows() == list(oracle) and len(catalog) == len(oracle)
    want = [CatalogItem(one.item_id, deleted=True) if one.deleted else one for one in oracle.values()]
    assert catalog.records() == want


@given(log=log_of_items)
def test_a_record_can_be_folded_again_into_an_equal_catalog(log):
    catalog, again = new_catalog(features_dim=2), new_catalog(features_dim=2)
    for row, one in log:
        catalog.fold([row], [one])
    rows = catalog.rows()
    again.fold(rows, catalog.records())
    want, got = seen(catalog), seen(again)
    alive = [row for row in range(ROWS) if not catalog.deleted(np.array([row]))[0]]
    assert torch.equal(catalog.contents()[alive], again.contents()[alive])
    # A deleted item may keep what its last record before said, and its copy need not.
    for members in (want["members"], got["members"]):
        for name, found in members.items():
            members[name] = [row for row in found if row in alive]
    assert got == want


@given(log=log_of_items)
def test_one_batch_says_what_its_records_say_one_by_one(log):
    whole, ones = (new_catalog(limit=3, features_dim=2) for _ in range(2))
    rows = [row for row, _ in log]
    dropped = whole.fold(rows, [one for _, one in log])
    assert dropped == [gone for row, one in log for gone in ones.fold([row], [one])]
    assert seen(whole) == seen(ones)
    assert torch.equal(whole.contents(), ones.contents())


@pytest.mark.parametrize("deleted", [False, True])
def test_a_removed_row_counts_as_deleted_and_revived_is_as_one_that_only_events_have_named(deleted):
    catalog, fresh = new_catalog(features_dim=2), new_catalog(features_dim=2)
    catalog.fold([1], [CatalogItem("1", "Milk", ("a",), (1.0, 2.0), 10, 20)])
    if deleted:
        catalog.fold([1], [CatalogItem("1", deleted=True)])
    catalog.remove(1)
    catalog.remove(1)
    assert catalog.deleted(np.arange(3)).tolist() == [False, True, False]
    catalog.revive(np.array([1]))
    assert seen(catalog) == seen(fresh)
    assert torch.equal(catalog.contents(), fresh.contents())
    assert catalog.title == fresh.title and catalog.categories == fresh.categories


def test_categories_that_no_item_has_any_more_take_no_room():
    catalog = new_catalog()
    for at in range(500):
        catalog.fold([at % ROWS], [CatalogItem("x", categories=(f"c{at}", f"d{at}"))])
    assert len(catalog._members) == 2 * ROWS


def test_items_of_the_same_categories_are_of_one_group():
    catalog = catalog_of(
        CatalogItem("1", "Whole milk", ("dairy", "milk")),
        CatalogItem("2", "Skim milk", ("dairy", "milk")),
        CatalogItem("3", "Nails", ("dairy milk",)),
        CatalogItem("4", "Butter", ("milk", "dairy")),
        CatalogItem("5", "Anything"),
    )
    group = catalog.group[:5].tolist()
    assert group[0] == group[1] and len(set(group)) == 4
    assert group[4] == NO_GROUP and min(group[:4]) >= 0
    catalog.fold([1], [CatalogItem("2", "Skim milk", ("milk", "dairy"))])
    assert catalog.group[1] == group[3]
    catalog.remove(1)
    assert catalog.group[1] == NO_GROUP
