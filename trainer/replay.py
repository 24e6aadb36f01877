"""Folds the log with the engine's own state, and keeps its newest events as columns to train from.

Shapes: E events kept; N items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import EventsConfig, StateConfig
from engine.events.batch import Decoded
from engine.state.state import State


@dataclass(frozen=True)
class EventLog:
    """Folded events, by event time and where that is equal by log order; every column is [E].

    Attributes:
        user, item: int64 rows.
        time_ms: int64 event time.
        kind: int64.
        value: float32.
        session: int32 ordinal of the user's session.
        previous: int64 item before it in its session, -1 at a start.
    """

    user: Tensor
    item: Tensor
    time_ms: Tensor
    kind: Tensor
    value: Tensor
    session: Tensor
    previous: Tensor

    def __len__(self) -> int:
        return len(self.user)

    def slice(self, first: int, last: int) -> EventLog:
        """Events first..last-1."""
        return EventLog(*(getattr(self, name)[first:last] for name in _COLUMNS))


@dataclass(frozen=True)
class TrainingData:
    """What one training run reads; later folding doesn't touch it.

    Attributes:
        content: [N, F] float32.
        deleted: [N] bool.
        item_ids: N external ids by row.
        kind_weight: [kinds] float64 weight of each kind in popularity.
    """

    log: EventLog
    users: int
    content: Tensor
    deleted: NDArray[np.bool_]
    item_ids: Sequence[str]
    kind_weight: NDArray[np.float64]
    state: StateConfig

    @property
    def items(self) -> int:
        return len(self.item_ids)


_COLUMNS = ("user", "item", "time_ms", "kind", "value", "session", "previous")
_DTYPES = (torch.int64, torch.int64, torch.int64, torch.int8, torch.float32, torch.int32, torch.int64)


class Replay:
    """The state as the engine has it, and the newest `max_log_events` events behind it."""

    def __init__(self, state: StateConfig, events: EventsConfig, max_log_events: int) -> None:
        self.state = State(state, events)
        self._config = state
        self._kind_weight = np.array(list(events.kinds.values()), dtype=np.float64)
        self._limit = max_log_events
        # Twice the limit, so that dropping the oldest costs O(1) per event.
        self._columns = [torch.zeros(0, dtype=dtype) for dtype in _DTYPES]
        self._kept = 0

    def fold(self, batch: Decoded) -> int:
        """Folds one decoded batch and returns how many events it had."""
        folded = self.state.fold(batch)
        events = batch.events
        if len(events):
            time_ms, kind, value = map(torch.from_numpy, (events.time_ms, events.kind, events.value))
            self._append([folded.user, folded.item, time_ms, kind, value, folded.session, folded.previous])
        return len(events)

    def __len__(self) -> int:
        """Events at hand to train from."""
        return min(self._kept, self._limit)

    def data(self) -> TrainingData:
        """A copy of everything that a training run reads.

        Partitions are read one after another while catching up, so the log is put in order of event time here: the
        newest slice must be the newest of all users, and a graph must not hold what came later elsewhere.
        """
        first = self._kept - len(self)
        by_time = self._columns[_COLUMNS.index("time_ms")][first : self._kept].sort(stable=True).indices
        columns = [column[first : self._kept][by_time] for column in self._columns]
        items = len(self.state.items)
        return TrainingData(
            EventLog(*columns),
            len(self.state.users),
            self.state.catalog.contents().clone(),
            self.state.catalog.deleted(np.arange(items)).copy(),
            list(self.state.items.ids()),
            self._kind_weight,
            self._config,
        )

    def _append(self, columns: list[Tensor]) -> None:
        more = len(columns[0])
        if self._kept + more > 2 * self._limit:
            keep = min(self._kept, self._limit)
            for column in self._columns:
                column[:keep] = column[self._kept - keep : self._kept].clone()
            self._kept = keep
        if (need := self._kept + more) > len(self._columns[0]):
            grow = max(need, 2 * len(self._columns[0]), 1024) - len(self._columns[0])
            self._columns = [torch.cat([column, column.new_zeros(grow)]) for column in self._columns]
        for column, new in zip(self._columns, columns, strict=True):
            column[self._kept : self._kept + more] = new
        self._kept += more
