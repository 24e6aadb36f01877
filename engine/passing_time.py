"""Lets items become available, and cease to be, as time passes: with a record or without one, by the wall clock.

A hundred thousand items may expire at the same moment. So each step of the engine takes some of them, as it takes some
of the records that come all at once, and the next one begins without waiting for records. Meanwhile the lists that are
made leave out all that may not be shown, by their own look at the time.
"""

from __future__ import annotations

import time

from engine.config import Config
from engine.state.state import Folded, State

_AT_ONCE = 4096  # items whose time has come, in one step: they cost it a few ms


def new_state(config: Config, partitions: int = 1) -> State:
    """An empty state, which judges from the beginning by the time as it is whether items may be shown."""
    state = State(
        config.state,
        config.events,
        events_topic=config.kafka.events_topic,
        partitions=partitions,
        catalog_only=config.ranking.catalog_only,
    )
    pass_time(state)
    return state


def pass_time(state: State) -> Folded | None:
    """Does one step's share for the items whose time has come; returns what that changes, if it does."""
    return state.pass_time(_now_ms(), _AT_ONCE)


def settled(state: State) -> bool:
    """Whether the time of no item has come that is still to be looked at."""
    return state.availability.settled(_now_ms())


def _now_ms() -> int:
    return int(time.time() * 1000)
