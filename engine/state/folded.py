"""What folding a batch changed: in rows that all rooms share, and in rows of one slice.

Shapes: E events folded, F events that forget, C items, R rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Rows = NDArray[np.int64]
Ordinals = NDArray[np.int32]
Inserted = tuple[Rows, Rows, Rows, Ordinals]  # user, item, previous and session of events
Part = tuple[Rows, Rows, Rows, Rows, Ordinals]  # the same, their positions in the batch before
N = TypeVar("N", bound=np.generic)

NO_ROWS: Rows = np.zeros(0, np.int64)
NO_EVENTS: Part = NO_ROWS, NO_ROWS, NO_ROWS, NO_ROWS, NO_ROWS.astype(np.int32)
_EMPTY = torch.zeros(0, dtype=torch.int64)


@dataclass(frozen=True)
class Folded:
    """What a batch changed.

    Attributes:
        event: [E] int64 positions in the batch of the events that were folded, those of a partition in log order.
            Relations are not among them.
        user: [E] int64 row of each event's user or anonymous session.
        item: [E] int64 row of each event's item.
        previous: [E] int64 item before it in its session, -1 at a start.
        session: [E] int32 the user's session ordinal.
        catalog: [C] int64 items whose catalog record, or whose past, changed otherwise than by an event.
        stale_users: [R] int64 users whose past changed because items are gone, and users with new relations.
        new_items: [R] int64 item rows that were given to an id in this batch, each once.
        gone_users: [R] int64 rows that no longer stand for who they did.
        relation: [R] int64 positions in the batch of the relations that were folded.
        forgot: [F] int64 positions in the batch of the events that forget and were applied, whether or not the state
            knew whom; those of a partition in log order.
        timed: [R] int64 items that have become available, or have ceased to be, as time passed.
    """

    event: Tensor
    user: Tensor
    item: Tensor
    previous: Tensor
    session: Tensor
    catalog: Tensor
    stale_users: Tensor
    new_items: Tensor
    gone_users: Tensor
    relation: Tensor
    forgot: Tensor
    timed: Tensor = _EMPTY

    @classmethod
    def joined(cls, parts: Sequence[Folded]) -> Folded:
        """What several batches changed: every row once, as many as there are rows, however many the events."""
        columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__}
        items = torch.cat([columns["item"], columns["previous"]])
        return cls(
            _EMPTY,
            columns["user"].unique(),
            items[items >= 0].unique(),
            _EMPTY,
            _EMPTY.int(),
            columns["catalog"].unique(),
            columns["stale_users"].unique(),
            columns["new_items"].unique(),
            columns["gone_users"].unique(),
            _EMPTY,
            _EMPTY,
            columns["timed"].unique(),
        )


@dataclass(frozen=True)
class SliceFolded:
    """What a batch changed, in rows of the slice.

    Attributes:
        event: [E] positions in the batch of the events that were folded, relations left out.
        user, item: [E].
        previous: [E] int64 item before it in its session, -1 at a start.
        session: [E] int32 the user's session ordinal.
        gone_users, gone_items: [R] int64 rows that were taken back, and may have been given away again.
        stale_users, stale_items: [R] int64 rows that remembered any of these.
        related_users, related_items: [R] int64 rows that relations were folded of.
        relation: [R] int64 positions in the batch of the relations that were folded.
        forgot: [F] int64 positions in the batch of the events that forget and were applied, whether or not the slice
            knew whom; in log order.
    """

    event: Rows
    user: Rows
    item: Rows
    previous: Rows
    session: Ordinals
    gone_users: Rows
    gone_items: Rows
    stale_users: Rows
    stale_items: Rows
    related_users: Rows
    related_items: Rows
    relation: Rows
    forgot: Rows


@dataclass
class Gone:
    """What a batch changes beside its events: rows taken back, who remembered them, relations, what forgets."""

    users: list[Rows] = field(default_factory=list)
    items: list[Rows] = field(default_factory=list)
    stale_users: list[Rows] = field(default_factory=list)
    stale_items: list[Rows] = field(default_factory=list)
    related_users: list[Rows] = field(default_factory=list)
    related_items: list[Rows] = field(default_factory=list)
    relation: list[Rows] = field(default_factory=list)
    forgot: list[Rows] = field(default_factory=list)

    def columns(self) -> Iterator[Rows]:
        """Each as one array, in this order."""
        return map(joined, self.__dict__.values())


def joined(parts: Sequence[Rows]) -> Rows:
    """All in one; no work where there is one, or none."""
    return _joined(parts) if parts else NO_ROWS


def joined_columns(parts: Sequence[Part]) -> Part:
    """Several parts of a batch as one, column by column."""
    if not parts:
        return NO_EVENTS
    event, user, item, previous, session = zip(*parts, strict=True)
    return _joined(event), _joined(user), _joined(item), _joined(previous), _joined(session)


def _joined(parts: Sequence[NDArray[N]]) -> NDArray[N]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def distinct(parts: Sequence[Rows]) -> Rows:
    """All rows, rising, each once."""
    rows = joined(parts)
    return np.unique(rows) if len(rows) else rows


def changed_rows(*, users: Rows, items: Rows, new: Rows, gone: Rows) -> Folded:
    """A change of the state without any event: users and items as they are, and rows given and taken back."""
    columns = (NO_ROWS, users, *NO_EVENTS[2:], np.unique(items), NO_ROWS, new, gone, NO_ROWS, NO_ROWS)
    return Folded(*map(torch.from_numpy, columns))


def runs_of(forget: NDArray[np.bool_]) -> Iterator[tuple[int, int | None]]:
    """Cuts [E] flags into runs (first, last) of events, and (at, None) for each event that forgets."""
    first = 0
    for at in np.flatnonzero(forget).tolist():
        if at > first:
            yield first, at
        yield at, None
        first = at + 1
    if first < len(forget):
        yield first, len(forget)
