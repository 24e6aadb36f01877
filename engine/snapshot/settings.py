"""The settings that a snapshot depends on, and which of them may change without its loss.

Under some other settings the same log would have folded to a state that can be made of the saved one; under a few it
can't.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from engine.config import EventsConfig, KafkaConfig, StateConfig

PARTITIONS = "partitions of the events topic"
Fingerprint = dict[str, Any]

# These concern what is to come: what was folded stays as it is.
RESTORED_AS_IS = ("state.session_gap_s", "events.default_kind", "events.default_user_relation",
                  "events.default_item_relation", "state.user_item_weight")  # fmt: skip
# The events that were folded are brought into the new shape; see `conversion` for the slices and `format.read_catalog`.
RESTORED_WITH_CONVERSION = (
    "state.history", "state.neighbors", "state.relations", "state.max_users", "state.max_items", "state.max_targets",
    "state.duplicates_window", "state.repeated_pairs", "state.half_lives_s", "state.features_dim", "state.content_dim",
    "state.content_encoder", "state.content_model", "events.kinds", "events.relations", PARTITIONS,
)  # fmt: skip
# Another topic is another log.
REFUSED = ("kafka.events_topic", "kafka.items_topic")
_STATE = [
    name.removeprefix("state.")
    for name in (*RESTORED_AS_IS, *RESTORED_WITH_CONVERSION)
    if name.startswith("state.") and name not in ("state.content_encoder", "state.content_model")
]


def fingerprint(state: StateConfig, events: EventsConfig, kafka: KafkaConfig, partitions: int) -> Fingerprint:
    """The settings that a snapshot depends on, by name, as they read after a way through JSON.

    Args:
        partitions: how many the events topic has.
    """
    found = {f"state.{name}": getattr(state, name) for name in _STATE}
    if state.content_encoder != "hashed":  # Snapshots from before there was a choice name none.
        found |= {f"state.{name}": getattr(state, name) for name in ("content_encoder", "content_model")}
    found |= {
        "events.kinds": list(events.kinds.items()),  # pairs: their order counts, that of a JSON object doesn't
        "events.default_kind": events.default_kind,
        "events.relations": list(events.relations.items()),
        "events.default_user_relation": events.default_user_relation,
        "events.default_item_relation": events.default_item_relation,
        "kafka.events_topic": kafka.events_topic,
        "kafka.items_topic": kafka.items_topic,
        PARTITIONS: partitions,
    }
    return as_json(found)


def as_json(settings: Mapping[str, Any]) -> Fingerprint:
    """The same settings as they read after a way through JSON."""
    found: Fingerprint = orjson.loads(orjson.dumps(dict(settings)))
    return found


def slices_refused(was: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Why slices saved under `was` can't be restored under `now`, naming the first setting; None where they can.

    A kind that is gone is no reason by itself: see `conversion.converted`.
    """
    name = "kafka.events_topic"
    if was[name] != now[name]:
        return _changed(name, was, now)
    if now[PARTITIONS] < was[PARTITIONS]:
        return _changed(PARTITIONS, was, now)
    return None


def catalog_refused(was: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Why a catalog saved under `was` can't be restored under `now`; None where it can."""
    name = "kafka.items_topic"
    return _changed(name, was, now) if was[name] != now[name] else None


def content_kept(was: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether the items' content, as the settings `was` encoded it, is what the settings `now` would give."""
    names = ("state.content_dim", "state.content_encoder", "state.content_model", "state.features_dim")
    return all(was.get(name) == now.get(name) for name in names)


def changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Every setting that differs, with both values and what becomes of what was folded before."""
    differ = [name for name in (*RESTORED_AS_IS, *RESTORED_WITH_CONVERSION) if was.get(name) != now.get(name)]
    return [
        f"{_changed(name, was, now)}: what was saved is {'kept as it is' if name in RESTORED_AS_IS else 'converted'}"
        for name in differ
    ]


def _changed(name: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    return f"{name} was {_shown(was, name)} and is {_shown(now, name)}"


def _shown(settings: Mapping[str, Any], name: str) -> str:
    return orjson.dumps(settings[name]).decode() if name in settings else "not set"
