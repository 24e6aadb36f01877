"""All that the state holds about one user, by ids."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from engine.state.slice import session_of
from engine.state.state import State


@dataclass(frozen=True)
class RememberedEvent:
    """One event of a user's history."""

    item_id: str
    kind: int
    time_ms: int
    value: float
    session: int  # counts the user's sessions, modulo 2**16


@dataclass(frozen=True)
class Subject:
    """What one partition holds about a user or an anonymous session.

    Attributes:
        session_id: of an anonymous session that the user is linked to; "" for what is held under the user's own id.
        history: oldest first.
        named_by_items: items that remember this subject among their latest.
    """

    partition: int
    session_id: str
    history: tuple[RememberedEvent, ...]
    sessions: int
    named_by_items: tuple[str, ...]


def export_subject(state: State, subject: str) -> tuple[Subject, ...]:
    """What is held about a user or an anonymous session by its subject_key, and the sessions it was linked to."""
    rows = [row for _, row in state.rows_of(subject)]
    linked = [other for row in rows for other in state.linked(row)]
    return tuple(_subject(state, row) for row in dict.fromkeys(rows + linked))


def _subject(state: State, row: int) -> Subject:
    partition, placed, local = state.home_of(row)
    slice_ = placed.slice
    graph = slice_.graph
    at = torch.tensor([local])
    edges = placed.items(graph.user_items.latest(at))
    columns = [column[0].tolist() for column in edges.columns()]
    history = tuple(
        RememberedEvent(state.items.id_of(item), kind, time_ms, weight, session)
        for item, time_ms, kind, weight, session in zip(*columns, strict=True)
        if item >= 0
    )
    items = graph.item_users.naming(at)
    named = [slice_.items.id_of(item) for item in items.tolist()]
    return Subject(
        partition,
        session_of(slice_.users.id_of(local) or ""),
        history,
        slice_.sessions.count(local),
        tuple(sorted(name for name in named if name is not None)),
    )
