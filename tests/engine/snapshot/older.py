"""The log that the snapshots of older formats in `data` were taken of, and the settings that they were taken under.

`data/format-2` and `data/format-3` were written by the last versions of Ousel that wrote these formats, from exactly
these records.
"""

from __future__ import annotations

from pathlib import Path

from engine.config import EventsConfig, KafkaConfig, StateConfig
from engine.events.batch import CatalogItem, Decoded
from engine.state.state import State
from tests.engine.logs import Line, batch, numbered

DATA = Path(__file__).parent / "data"
PARTITIONS = 2
CONFIG = StateConfig(
    max_users=12, max_items=8, max_targets=8, history=8, neighbors=4, relations=4, duplicates_window=16, content_dim=8
)
EVENTS, KAFKA = EventsConfig(), KafkaConfig()
ITEMS = (
    CatalogItem("i1", "Red shoes", ("shoes", "sale"), available_until_ms=2**41),
    CatalogItem("i2", "Blue shoes", ("shoes",)),
    CatalogItem("i3", deleted=True),
)
_BEGIN_MS = 1_700_000_000_000


def lines() -> list[Line]:
    """In order of time, with an event id of its own for each: repeats and late events are no subject here."""
    found = []
    for at in range(60):
        # Each user stays in one partition. The events of the anonymous session s1 lie in both.
        partition = at % 2
        user = f"u{at % 8}" if at % 7 else ""
        session = "s1" if not user else f"t{at // 20}" if at % 3 == 0 else ""
        time_ms = _BEGIN_MS + at * 600_000
        found.append(Line(user, session, f"i{at * at % 10}", at % 3, time_ms, partition, 0, f"e{at}", 1.0 + at % 2))
    found += [
        Line("u1", "", "", 0, _BEGIN_MS + 40_000_000, 1, 0, "r1", 1.0, target="u2"),
        Line("u3", "", "", 1, _BEGIN_MS + 40_000_001, 1, 0, "r2", 2.0, target="u1"),
        Line("", "", "i1", 2, _BEGIN_MS + 40_000_002, 0, 0, "r3", 1.0, target="brand"),
        Line("u3", "", "", 1, _BEGIN_MS + 40_000_003, 1, 0, "r4", 1.0, target="u1", ends=True),
        Line("u5", forget=True, partition=1, time_ms=_BEGIN_MS + 40_000_004),
        Line("u1", "s1", "i4", 0, _BEGIN_MS + 40_000_005, 1, 0, "e61"),
    ]
    return numbered(found)


def records() -> Decoded:
    """The whole log, the catalog included, as one batch."""
    decoded = batch(lines(), ITEMS)
    return Decoded(decoded.events, decoded.items, (), decoded.positions | {(KAFKA.items_topic, 0): len(ITEMS)})


def folded(config: StateConfig = CONFIG, events: EventsConfig = EVENTS) -> State:
    """What this version makes of the log."""
    state = State(config, events, partitions=PARTITIONS)
    state.fold(records())
    return state
