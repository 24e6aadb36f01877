"""Content features of a file's items beside those that the engine folds from its catalog topic."""

from __future__ import annotations

import torch

from engine.config import EventsConfig, StateConfig
from engine.events.batch import CatalogItem, Decoded, EventBatch
from engine.state.state import State
from tests.trainer.evaluation.logs import log_of
from trainer.data.files import Items
from trainer.evaluation.content import described

LOG = log_of([(0, 0, 2, 0.0), (0, 0, 0, 1.0)], items=4)


def test_features_are_those_that_the_engine_has_of_the_same_items() -> None:
    title = {"i3": "", "i0": "The Blackbird, told", "elsewhere": "Nothing", "i2": "Ousel"}
    items = Items(title, {"i3": ("birds",), "i0": ("books", "birds"), "elsewhere": (), "i2": ()}, str)
    here = described(LOG, items, StateConfig())
    found = here.contents()

    state = State(StateConfig(), EventsConfig(), events_topic="events", partitions=1)
    catalog = [CatalogItem(item_id, title=title[item_id], categories=items.categories[item_id]) for item_id in title]
    state.fold(Decoded(EventBatch.empty(), catalog, (), {}))
    want = state.catalog.contents()[state.items.find(["i0", "i2", "i3"])]
    assert torch.equal(found[[0, 2, 3]], want) and (want.norm(dim=1) - 1).abs().max() < 1e-6
    assert not found[1].any()
    assert here.group[[0, 2, 3]].tolist() == state.catalog.group[state.items.find(["i0", "i2", "i3"]).numpy()].tolist()
