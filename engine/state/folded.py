"""What folding a batch changed: in rows that all rooms share, and in rows of one slice.

Shapes: E events folded, F events that forget, C items, R rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

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
        )


@dataclass(frozen=True)
class SliceFolded:
    """What a batch changed, in rows of the slice.

    Attributes:
        event: [E] int64 positions in the batch of the events that were folded, relations left out.
        user, item: [E] int64.
        previous: [E] int64 item before it in its session, -1 at a start.
        session: [E] int32 the user's session ordinal.
        gone_users, gone_items: [R] int64 rows that were taken back, and may have been given away again.
        stale_users, stale_items: [R] int64 rows that remembered any of these.
        related_users, related_items: [R] int64 rows that relations were folded of.
        relation: [R] int64 positions in the batch of the relations that were folded.
        forgot: [F] int64 positions in the batch of the events that forget and were applied, whether or not the slice
            knew whom; in log order.
    """

    event: Tensor
    user: Tensor
    item: Tensor
    previous: Tensor
    session: Tensor
    gone_users: Tensor
    gone_items: Tensor
    stale_users: Tensor
    stale_items: Tensor
    related_users: Tensor
    related_items: Tensor
    relation: Tensor
    forgot: Tensor


@dataclass
class Gone:
    """What a batch changes beside its events: rows taken back, who remembered them, relations, what forgets."""

    users: list[Tensor] = field(default_factory=lambda: [_EMPTY])
    items: list[Tensor] = field(default_factory=lambda: [_EMPTY])
    stale_users: list[Tensor] = field(default_factory=lambda: [_EMPTY])
    stale_items: list[Tensor] = field(default_factory=lambda: [_EMPTY])
    related_users: list[Tensor] = field(default_factory=lambda: [_EMPTY])
    related_items: list[Tensor] = field(default_factory=lambda: [_EMPTY])
    relation: list[Tensor] = field(default_factory=lambda: [_EMPTY])
    forgot: list[Tensor] = field(default_factory=lambda: [_EMPTY])

    def columns(self) -> Iterator[Tensor]:
        return (torch.cat(getattr(self, column.name)) for column in fields(self))
