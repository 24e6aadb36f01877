"""All that the state holds about one user, by ids."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.state.slice import Slice
from engine.state.state import State
from engine.state.subjects import session_of


@dataclass(frozen=True)
class RememberedEvent:
    """One event of a user's history."""

    item_id: str
    kind: int
    time_ms: int
    value: float
    session: int  # counts the user's sessions, modulo 2**16


@dataclass(frozen=True)
class RememberedRelation:
    """One relation of a user to another."""

    user_id: str
    kind: int
    time_ms: int
    value: float


@dataclass(frozen=True)
class Subject:
    """What one partition holds about a user or an anonymous session.

    Attributes:
        session_id: of an anonymous session that the user is linked to; "" for what is held under the user's own id.
        history: oldest first.
        named_by_items: items that remember this subject, among their latest or for what it added to their popularity.
        relations: to other users, that named last last.
        named_by_users: how many users of the partition are related to this one.
    """

    partition: int
    session_id: str
    history: tuple[RememberedEvent, ...]
    sessions: int
    named_by_items: tuple[str, ...]
    relations: tuple[RememberedRelation, ...] = ()
    named_by_users: int = 0


def export_subject(state: State, subject: str) -> tuple[Subject, ...]:
    """What is held about a user or an anonymous session by its subject_key, and the sessions it was linked to."""
    rows = state.people.rows_of(subject)
    linked = [other for more in state.people.linked(rows).values() for other in more]
    found = [_subject(state, row) for row in dict.fromkeys(rows + linked)]
    known = {one.partition for one in found if not one.session_id}
    # A partition may know of somebody only whom others are related to.
    for partition, placed in state.slices.items():
        if partition not in known and (users := _named_by_users(placed.slice, subject)):
            found.append(Subject(partition, "", (), 0, (), (), users))
    return tuple(found)


def _subject(state: State, row: int) -> Subject:
    partition, placed, local = state.home_of(row)
    slice_ = placed.slice
    graph = slice_.graph
    at = torch.tensor([local])
    edges = state.graph.user_items.latest(torch.tensor([row]))
    columns = [column[0].tolist() for column in edges.columns()]
    history = tuple(
        RememberedEvent(state.items.id_of(item), kind, time_ms, weight, session)
        for item, time_ms, kind, weight, session in zip(*columns, strict=True)
        if item >= 0
    )
    items = graph.item_users.naming(at)
    items = torch.cat([items, torch.from_numpy(slice_.contributions.items_of(local))])
    named = {slice_.items.id_of(item) for item in items.tolist()}
    subject = slice_.users.id_of(local) or ""
    return Subject(
        partition,
        session_of(subject),
        history,
        slice_.sessions.count(local),
        tuple(sorted(name for name in named if name is not None)),
        _relations(slice_, at),
        _named_by_users(slice_, subject),
    )


def _relations(slice_: Slice, at: Tensor) -> tuple[RememberedRelation, ...]:
    edges = slice_.relations.user_users.latest(at)
    columns = [column[0].tolist() for column in edges.columns()[:4]]
    return tuple(
        RememberedRelation(slice_.relations.targets.id_of(row) or "", kind, time_ms, weight)
        for row, time_ms, kind, weight in zip(*columns, strict=True)
        if row >= 0
    )


def _named_by_users(slice_: Slice, subject: str) -> int:
    row = None if session_of(subject) else slice_.relations.targets.get(subject)
    return 0 if row is None else len(slice_.relations.user_users.naming(torch.tensor([row])))
