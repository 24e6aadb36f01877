"""A small engine world for tests: a folded state and a generation of a random model over it."""

from __future__ import annotations

import random
from collections.abc import Sequence

from ousel.v1 import event_pb2

from engine.config import Config, IndexConfig, InferenceConfig, StateConfig
from engine.events.batch import CatalogItem, Record
from engine.generation import Frozen, Generation, build_generation
from engine.state.state import State
from tests.engine.logs import HOUR_MS, Row, decoded
from tests.engine.models import CONTENT_DIM, small_weights

ITEMS = [f"i{at:02}" for at in range(30)]
USERS = [f"u{at}" for at in range(6)]
NOW_MS = 1_700_000_000_000


def small_config() -> Config:
    return Config(
        state=StateConfig(history=8, neighbors=3, content_dim=CONTENT_DIM, max_users=64, max_items=64),
        inference=InferenceConfig(epsilon=0.0),
        index=IndexConfig(ef_search=8),
    )


def purchases(count: int, seed: int = 0) -> list[Row]:
    chance = random.Random(seed)
    return [
        (chance.choice(USERS), f"s{at // 7}", chance.choice(ITEMS), 7, NOW_MS + at * HOUR_MS) for at in range(count)
    ]


def catalog(items: Sequence[str] = ITEMS) -> list[CatalogItem]:
    return [CatalogItem(item, f"Title of {item}", (f"c{int(item[1:]) % 3}",)) for item in items]


def small_state(config: Config, events: int = 80) -> State:
    state = State(config.state, config.events)
    state.fold(decoded(purchases(events), items=catalog()))
    return state


def small_generation(config: Config, state: State, version: int = 1, seed: int = 0) -> Generation:
    return build_generation(small_weights(ITEMS, seed), version, {"hit_rate@20": 0.5}, Frozen.of(state), config)


def record(config: Config, offset: int, user_id: str, item_id: str, kind: str = "purchase") -> Record:
    """One record of the events topic as a producer writes it."""
    event = event_pb2.Event(event_id=f"e{offset}", user_id=user_id, item_id=item_id, kind=kind)
    return Record(config.kafka.events_topic, 0, offset, NOW_MS + offset, user_id.encode(), event.SerializeToString())
