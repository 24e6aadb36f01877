"""What a file says of items, as the features that the engine's catalog makes of it.

Shapes: N items, F content features.
"""

from __future__ import annotations

from torch import Tensor

from engine.config import StateConfig
from engine.events.batch import CatalogItem
from engine.state.catalog import Catalog
from engine.state.content import content_encoder
from trainer.evaluation.files import Items
from trainer.evaluation.log import Events


def content_features(events: Events, items: Items) -> Tensor:
    """[N, F] hashed categories and title words; zeros of an item that the file does not name or says nothing of.

    F is the default of `state.content_dim`.
    """
    catalog = Catalog(content_encoder(StateConfig()), 0, rows=len(events.items), limit=len(events.items))
    catalog.grow(len(events.items))
    rows = [row for row, item_id in enumerate(events.items) if item_id in items.title]
    named = [events.items[row] for row in rows]
    catalog.fold(rows, [CatalogItem(one, title=items.title[one], categories=items.categories[one]) for one in named])
    return catalog.contents()
