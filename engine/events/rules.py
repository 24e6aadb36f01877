"""The rules for events and catalog items: this is the one place of them, for the log and for the server alike.

Each check returns None, or why it is broken: the field, what it must be, and what it was.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from engine.config import EventsConfig
from engine.events.batch import CatalogItem
from engine.events.placeholders import placeholder_problem
from engine.events.problem import Problem
from engine.events.times import MAX_TIME_MS, TimeRule, earliest_ms, shown_ms

MAX_TITLE_CHARS = 1024
MAX_CATEGORIES = 64
_SHOWN = 40
_control = re.compile(r"[\x00-\x1f\x7f]").search


def event_problem(
    event_id: str,
    user_id: str,
    session_id: str,
    item_id: str,
    kind: str,
    time_ms: int,
    value: float,
    forget: bool,
    now_ms: int,
    config: EventsConfig,
) -> Problem | None:
    """Checks one event that is no relation.

    Args:
        kind: the event's, or the default where it has none.
        time_ms: the event's, or its record's where it has none.
        now_ms: what `time_ms` may not be too far ahead of: the record's time, or the clock before there is a record.
            Negative where a record has no time; then only the calendar bounds `time_ms`.
    """
    if forget and item_id:
        return Problem("item_id", f"must be empty where forget is true, got {shown(item_id)}")
    if not item_id and not forget:
        return Problem("item_id", "must not be empty, got ''")
    if not user_id and not session_id:
        return Problem("user_id", "or session_id must be set, got neither")
    limit = config.max_id_bytes
    ids = item_id + user_id + session_id + event_id
    # One look at all four together settles nearly every event; what it can't settle is looked at by name.
    if len(ids) > limit or not (ids.isascii() and ids.isprintable()):
        problem = (
            id_problem("item_id", item_id, limit)
            or id_problem("user_id", user_id, limit)
            or id_problem("session_id", session_id, limit)
            or id_problem("event_id", event_id, limit)
        )
        if problem:
            return problem
    # Somebody may still have to be forgotten who was folded under such an id before it was listed.
    problem = None if forget else _nobody_problem(config, user_id=user_id, session_id=session_id)
    return problem or _said_problem(kind, config.kinds, time_ms, value, now_ms, config)


def relation_problem(
    event_id: str,
    user_id: str,
    session_id: str,
    item_id: str,
    target_user_id: str,
    entity_id: str,
    kind: str,
    time_ms: int,
    value: float,
    forget: bool,
    now_ms: int,
    config: EventsConfig,
) -> Problem | None:
    """Checks one event that has a target_user_id or an entity_id, or says that a relation ends.

    Args: see `event_problem`.
    """
    if forget:
        name, got = ("target_user_id", target_user_id) if target_user_id else ("entity_id", entity_id)
        field, said = (name, "must be empty") if got else ("ends", "must be false")
        return Problem(field, f"{said} where forget is true, got {shown(got) if got else 'true'}")
    if target_user_id and entity_id:
        return Problem("entity_id", f"must be empty where target_user_id is set, got {shown(entity_id)}")
    problem = (
        _social_problem(user_id, item_id, target_user_id)
        if target_user_id
        else _knowledge_problem(user_id, session_id, item_id, entity_id)
    )
    if problem:
        return problem
    names = ("target_user_id", "entity_id", "item_id", "user_id", "session_id", "event_id")
    for name, given in zip(names, (target_user_id, entity_id, item_id, user_id, session_id, event_id), strict=True):
        problem = id_problem(name, given, config.max_id_bytes)
        if problem:
            return problem
    problem = _nobody_problem(config, user_id=user_id, session_id=session_id, target_user_id=target_user_id)
    return problem or _said_problem(kind, config.relations, time_ms, value, now_ms, config)


def _nobody_problem(config: EventsConfig, **ids: str) -> Problem | None:
    """Checks by field that ids of users and sessions stand for somebody."""
    problems = (placeholder_problem(name, given, config) for name, given in ids.items())
    return next((problem for problem in problems if problem), None)


def _social_problem(user_id: str, item_id: str, target_user_id: str) -> Problem | None:
    if not user_id:
        return Problem("user_id", "must not be empty where target_user_id is set, got ''")
    if item_id:
        return Problem("item_id", f"must be empty where target_user_id is set, got {shown(item_id)}")
    if user_id == target_user_id:
        return Problem("target_user_id", f"must be another user than user_id, got {shown(target_user_id)}")
    return None


def _knowledge_problem(user_id: str, session_id: str, item_id: str, entity_id: str) -> Problem | None:
    if not entity_id:
        return Problem("target_user_id", "or entity_id must be set where ends is true, got neither")
    if not item_id:
        return Problem("item_id", "must not be empty where entity_id is set, got ''")
    for name, given in (("user_id", user_id), ("session_id", session_id)):
        if given:
            return Problem(name, f"must be empty where entity_id is set, got {shown(given)}")
    return None


def _said_problem(
    kind: str, kinds: Mapping[str, float], time_ms: int, value: float, now_ms: int, config: EventsConfig
) -> Problem | None:
    """Checks what all events say beside ids."""
    if kind not in kinds:
        return Problem("kind", f"must be one of {list(kinds)}, got {shown(kind)}")
    if not earliest_ms(config.earliest_year) <= time_ms <= MAX_TIME_MS:
        problem = TimeRule.of(config).problem("time", time_ms)
        if problem is not None and time_ms == now_ms:
            problem = problem.with_more(" (the time of its record, since it names none)")
        return problem
    if now_ms >= 0 and time_ms > now_ms + config.max_future_s * 1000:
        latest = f"at most {config.max_future_s:g} s (events.max_future_s) ahead of its record"
        return Problem("time", f"must lie {latest}, which is of {shown_ms(now_ms)}, got {shown_ms(time_ms)}")
    if not 0 <= value < math.inf:
        return Problem("value", f"must be a finite number >= 0, got {value}")
    return None


def item_problem(item: CatalogItem, features_dim: int, config: EventsConfig) -> Problem | None:
    """Checks one record of the catalog.

    Args:
        features_dim: length of the features where there are any.
    """
    if not item.item_id:
        return Problem("item_id", "must not be empty, got ''")
    problem = id_problem("item_id", item.item_id, config.max_id_bytes)
    if problem:
        return problem
    if len(item.title) > MAX_TITLE_CHARS:
        return Problem("title", f"must have at most {MAX_TITLE_CHARS} characters, got {len(item.title)}")
    if len(item.categories) > MAX_CATEGORIES:
        return Problem("categories", f"must be at most {MAX_CATEGORIES}, got {len(item.categories)}")
    for position, category in enumerate(item.categories):
        name = f"categories[{position}]"
        if not category:
            return Problem(name, "must not be empty, got ''")
        problem = id_problem(name, category, config.max_id_bytes)
        if problem:
            return problem
    if item.attributes and (problem := _attributes_problem(item.attributes, config)):
        return problem
    if len(item.features) not in (0, features_dim):
        return Problem("features", f"must have {features_dim or 'no'} values, got {len(item.features)}")
    # Float32 values can't overflow a float64 sum: it is finite exactly when they all are.
    if not math.isfinite(sum(item.features)):
        position, feature = next((i, x) for i, x in enumerate(item.features) if not math.isfinite(x))
        return Problem(f"features[{position}]", f"must be finite, got {feature}")
    start_ms, end_ms = item.available_from_ms, item.available_until_ms
    for name, time_ms in (("available_from", start_ms), ("available_until", end_ms)):
        if time_ms is not None and (problem := TimeRule.of(config).problem(name, time_ms)):
            return problem.with_more("; an item that is not bounded on this side leaves the field out")
    if start_ms is not None and end_ms is not None and start_ms >= end_ms:
        return Problem(
            "available_from", f"must be before available_until, got {shown_ms(start_ms)} and {shown_ms(end_ms)}"
        )
    return None


def _attributes_problem(attributes: Sequence[tuple[str, str]], config: EventsConfig) -> Problem | None:
    if len(attributes) > config.max_attributes:
        return Problem(
            "attributes", f"must be at most {config.max_attributes} (events.max_attributes), got {len(attributes)}"
        )
    size = sum(len(text.encode()) for pair in attributes for text in pair)
    if size > config.max_attribute_bytes:
        limit = f"{config.max_attribute_bytes} bytes (events.max_attribute_bytes)"
        return Problem("attributes", f"must have at most {limit} in names and values, got {size}")
    for name, _ in attributes:
        if not name:
            return Problem("attributes", "must have names, got ''")
        if problem := id_problem("the name of an attribute", name, config.max_id_bytes):
            return problem
    return None


def id_problem(name: str, value: str, max_bytes: int) -> Problem | None:
    """Checks an id's length in UTF-8 and its characters. An empty one passes: whether it may be is another rule."""
    if len(value) * 4 > max_bytes and (size := len(value.encode())) > max_bytes:
        return Problem(name, f"must have at most {max_bytes} bytes in UTF-8, got {size}: {shown(value)}")
    if _control(value):
        return Problem(name, f"must not have control characters, got {shown(value)}")
    return None


def shown(value: object) -> str:
    """A value as a reason shows it: escaped and short."""
    if isinstance(value, str | bytes):
        return repr(value) if len(value) <= _SHOWN else f"{value[:_SHOWN]!r}..."
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
