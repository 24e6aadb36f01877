"""What a file says of items, as the engine's catalog has it."""

from __future__ import annotations

from engine.config import StateConfig
from engine.events.batch import CatalogItem
from engine.state.catalog import Catalog
from engine.state.catalog_records import CatalogRecords
from engine.state.content import content_encoder
from trainer.data.files import Items
from trainer.data.log import Events


def described(events: Events, items: Items, config: StateConfig) -> Catalog:
    """The catalog of the file's items by the log's rows; an item that the file does not name is one without content."""
    catalog = Catalog(content_encoder(config), 0, len(events.items), CatalogRecords(len(events.items), 2**40))
    catalog.grow(len(events.items))
    rows = [row for row, item_id in enumerate(events.items) if item_id in items.title]
    named = [events.items[row] for row in rows]
    catalog.fold(rows, [CatalogItem(one, title=items.title[one], categories=items.categories[one]) for one in named])
    return catalog
