from __future__ import annotations

import numpy as np
import torch

from engine.events.batch import CatalogItem
from engine.state.catalog import Catalog


def catalog_of(*items: CatalogItem, features_dim: int = 0) -> Catalog:
    catalog = Catalog(content_dim=32, features_dim=features_dim)
    catalog.grow(len(items))
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


def test_members_follow_the_newest_record():
    catalog = catalog_of(CatalogItem("1", categories=("a", "b")), CatalogItem("2", categories=("b",)))
    assert catalog.members(["b"]).tolist() == [0, 1]
    catalog.fold([0], [CatalogItem("1", categories=("c",))])
    assert catalog.members(["a", "b"]).tolist() == [1]
    assert catalog.members(["c", "b"]).tolist() == [0, 1]
    assert catalog.members(["never"]).tolist() == []


def test_an_item_known_from_events_alone_is_servable():
    catalog = Catalog(content_dim=8, features_dim=0)
    catalog.grow(1)
    assert catalog.servable(np.array([0]), 0).all()
    assert catalog.contents().abs().sum() == 0
