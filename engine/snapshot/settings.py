"""The settings that a snapshot depends on: under others the same log would have folded to something else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from engine.config import EventsConfig, KafkaConfig, StateConfig

_STATE = (
    "history",
    "neighbors",
    "relations",
    "max_targets",
    "session_gap_s",
    "half_lives_s",
    "duplicates_window",
    "max_users",
    "max_items",
    "features_dim",
    "content_dim",
)
_ENCODED = ("content_encoder", "content_model")
_ABSENT = object()

Fingerprint = dict[str, Any]


def fingerprint(state: StateConfig, events: EventsConfig, kafka: KafkaConfig, partitions: int) -> Fingerprint:
    """What a snapshot must have been taken under to be of use, by the name of the setting.

    Args:
        partitions: how many the events topic has.
    """
    found = {f"state.{name}": getattr(state, name) for name in _STATE}
    if state.content_encoder != "hashed":  # else not named, as in snapshots from before there was a choice
        found |= {f"state.{name}": getattr(state, name) for name in _ENCODED}
    found |= {
        "events.kinds": list(events.kinds.items()),  # pairs: their order counts, that of a JSON object doesn't
        "events.default_kind": events.default_kind,
        "events.relations": list(events.relations.items()),
        "events.default_user_relation": events.default_user_relation,
        "events.default_item_relation": events.default_item_relation,
        "kafka.events_topic": kafka.events_topic,
        "kafka.items_topic": kafka.items_topic,
        "partitions of the events topic": partitions,
    }
    return as_json(found)


def as_json(settings: Mapping[str, Any]) -> Fingerprint:
    """The same settings as they read after a way through JSON."""
    found: Fingerprint = orjson.loads(orjson.dumps(dict(settings)))
    return found


def difference(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Names the first setting that differs, with both values; None where all are equal."""
    for name in [*now, *saved]:
        before, after = saved.get(name, _ABSENT), now.get(name, _ABSENT)
        if before != after:
            return f"{name} was {_shown(before)} and is {_shown(after)}"
    return None


def _shown(value: Any) -> str:
    return "not set" if value is _ABSENT else orjson.dumps(value).decode()
