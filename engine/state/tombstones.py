"""Which item a tombstone deletes whose key may be an id or the JSON text of one."""

from __future__ import annotations

from collections.abc import Sequence

from engine.events.batch import CatalogItem, QuotedTombstone
from engine.state.catalog import Catalog
from engine.state.id_map import IdMap


def named(items: Sequence[CatalogItem], ids: IdMap, catalog: Catalog) -> Sequence[CatalogItem]:
    """The first of these items, with the item of each quoted tombstone told; at least one where there are any.

    A tombstone deletes the item of its literal key where the catalog has a record of it. Whether it has may depend on
    the items before the tombstone, which are then returned without it, to be folded first.
    """
    if not any(type(item) is QuotedTombstone for item in items):
        return items
    told: list[CatalogItem] = []
    before: set[str] = set()
    for item in items:
        if type(item) is QuotedTombstone:
            row = ids.get(item.item_id)
            literal = row is not None and row in catalog
            if told and (literal or item.item_id in before):
                break
            item = _deleted(item, item.item_id if literal else item.named_id)
        told.append(item)
        before.add(item.item_id)
    return told


def _deleted(tombstone: QuotedTombstone, item_id: str) -> CatalogItem:
    return CatalogItem(item_id, deleted=True, offset=tombstone.offset, partition=tombstone.partition)
