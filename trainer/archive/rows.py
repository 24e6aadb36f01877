"""Events as rows of the archive's files, and back.

Kinds are kept by name: their numbers are the configuration's, and it may change before a row is read again.

Shapes: E rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.config import EventsConfig
from engine.events.batch import EventBatch
from engine.state.subjects import session_of, subject_key

_IDS = ("event_id", "user_id", "session_id", "item_id", "target_id")
_NUMBERS = {
    "time_ms": pa.int64(),
    "value": pa.float32(),
    "partition": pa.int32(),
    "offset": pa.int64(),
    "timestamp_ms": pa.int64(),
    "forget": pa.bool_(),
    "ends": pa.bool_(),
}
SCHEMA = pa.schema(
    [
        ("ordinal", pa.int64()),  # counts the archived events as they were read, so rising within a partition
        *((name, pa.string()) for name in _IDS),
        ("kind", pa.string()),
        *_NUMBERS.items(),
    ]
)
WHOSE = ("user_id", "session_id", "item_id", "target_id", "partition", "offset")  # the columns that `rows_of` looks at


def to_table(events: EventBatch, first_ordinal: int, config: EventsConfig) -> pa.Table:
    """Rows of these events. A record that forgets is without its subject: what it asked for is done to the rows."""
    columns = {name: pa.array(getattr(events, name), pa.string()) for name in _IDS}
    if events.forget.any():
        for name in ("user_id", "session_id"):
            columns[name] = pc.if_else(pa.array(events.forget), "", columns[name])
    related = np.array([target != "" for target in events.target_id], np.bool_)
    kinds = pa.array([*config.kinds, *config.relations])
    columns["kind"] = kinds.take(pa.array(events.kind.astype(np.int64) + related * len(config.kinds)))
    columns |= {name: pa.array(getattr(events, name), dtype) for name, dtype in _NUMBERS.items()}
    columns["ordinal"] = pa.array(np.arange(first_ordinal, first_ordinal + len(events)))
    return pa.table(columns, SCHEMA)


def to_events(table: pa.Table, config: EventsConfig) -> EventBatch:
    """The events of these rows; those whose kind the configuration no longer has are left out, as of the log itself."""
    kind = pc.if_else(
        pc.equal(table["target_id"], ""),
        pc.index_in(table["kind"], pa.array(list(config.kinds))),
        pc.index_in(table["kind"], pa.array(list(config.relations))),
    )
    known = pc.is_valid(kind)
    table, kind = table.filter(known), kind.filter(known)
    ids = {name: table[name].to_pylist() for name in _IDS}
    numbers = {name: table[name].to_numpy() for name in _NUMBERS}
    return EventBatch(kind=kind.to_numpy().astype(np.int8), **ids, **numbers)


def rows_of(table: pa.Table, places: Mapping[tuple[str, int], int]) -> NDArray[np.bool_]:
    """[E] whether a row belongs to one of these subjects, or relates another user to it.

    Args:
        places: by (subject_key, partition) the offset below which the partition's rows are meant.
    """
    sessions = {session_of(subject) for subject, _ in places} - {""}
    users = pa.array({subject for subject, _ in places if not session_of(subject)}, pa.string())
    user, session, item, target = (table[name] for name in ("user_id", "session_id", "item_id", "target_id"))
    anonymous = pc.and_(pc.equal(user, ""), pc.is_in(session, pa.array(sessions, pa.string())))
    related = pc.and_(pc.equal(item, ""), pc.is_in(target, users))
    at = np.flatnonzero(pc.or_(pc.or_(pc.is_in(user, users), anonymous), related).to_numpy())
    found = np.zeros(len(table), np.bool_)
    rows = (column.to_pylist() for column in table.select(WHOSE).take(at).columns)
    for place, user_id, session_id, item_id, target_id, partition, offset in zip(at.tolist(), *rows, strict=True):
        subjects = [subject_key(user_id, session_id)] + [target_id] * (item_id == "")
        found[place] = any(offset < places.get((subject, partition), -1) for subject in subjects)
    return found
