"""Folds the log with the engine's own state, and keeps its newest events to train from.

Shapes: E events kept; N items.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import EventsConfig, KafkaConfig, RankingConfig, StateConfig
from engine.events.batch import Decoded, EventBatch
from engine.state.catalog import ALWAYS, NO_GROUP
from engine.state.folded import Folded
from engine.state.sessions import Sessioned, Sessions
from engine.state.state import State
from engine.state.subjects import subject_key
from engine.state.table import Table
from trainer.data.id_overlap import overlap_problem
from trainer.store import EventStore, StoredEvents

_log = logging.getLogger(__name__)

_DEFAULTS = RankingConfig()
_EVENTS_TOPIC = str(KafkaConfig.model_fields["events_topic"].default)


@dataclass(frozen=True)
class EventLog:
    """Folded events, by event time and where that is equal by partition and log order; every column is [E].

    Attributes:
        user, item: int64 numbers, as `TrainingData` counts them.
        time_ms: int64 event time.
        kind: int64.
        value: float32.
        session: int32 ordinal of the user's session, from 1 at the first event that is kept.
        previous: int64 item before it in its session, -1 at a start and where it is not kept.
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
        return EventLog(*(getattr(self, name)[first:last] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class TrainingData:
    """What one training run reads; later folding doesn't touch it.

    Attributes:
        users: users and anonymous sessions in the log, numbered from 0.
        content: [N, F] float32.
        group: [N] int64 what stands for an item's categories; see `Catalog`.
        deleted: [N] bool what must not be recommended at any time: deleted from the catalog, evicted from the state, or
            without a record where only items of the catalog may be shown.
        from_ms, until_ms: [N] int64 event times from which, and until which, each item may be recommended.
        item_ids: N external ids by number; the items of the catalog and those of the log.
        kind_weight: [kinds] float64 weight of each kind in popularity.
        state, ranking: the engine's sections: how much it remembers, and what its lists are made of.
    """

    log: EventLog
    users: int
    content: Tensor
    group: NDArray[np.int64]
    deleted: NDArray[np.bool_]
    from_ms: NDArray[np.int64]
    until_ms: NDArray[np.int64]
    item_ids: Sequence[str]
    kind_weight: NDArray[np.float64]
    state: StateConfig
    ranking: RankingConfig

    @property
    def items(self) -> int:
        return len(self.item_ids)

    @classmethod
    def without_catalog(
        cls,
        log: EventLog,
        users: int,
        item_ids: Sequence[str],
        kind_weight: NDArray[np.float64],
        state: StateConfig,
        ranking: RankingConfig,
    ) -> TrainingData:
        """Items that may always be recommended, and of which nothing is known."""
        items = len(item_ids)
        return cls(
            log, users, torch.zeros(items, 1), np.full(items, NO_GROUP), np.zeros(items, np.bool_),
            np.full(items, ALWAYS.min), np.full(items, ALWAYS.max), item_ids, kind_weight, state, ranking,
        )  # fmt: skip

    def may_be_shown(self, now_ms: int) -> NDArray[np.bool_]:
        """[N] whether an item may be recommended at a time of events."""
        return ~self.deleted & (self.from_ms <= now_ms) & (now_ms < self.until_ms)


class Replay:
    """The state as the engine has it, and the newest `max_log_events` events behind it.

    The state says which events count, and knows the catalog. Whoever it evicts as the longest idle stays in the store:
    old events are still good to learn from. Whoever is to be forgotten leaves both at once, of the partition in which a
    record says so: each has its own, and what came after it there stays, in whatever order partitions are read.

    Args:
        partitions: of the events topic.
        ranking: as in the engine.
    """

    def __init__(
        self,
        state: StateConfig,
        events: EventsConfig,
        max_log_events: int,
        *,
        events_topic: str = _EVENTS_TOPIC,
        partitions: int = 1,
        ranking: RankingConfig = _DEFAULTS,
    ) -> None:
        self.state = State(
            state, events, events_topic=events_topic, partitions=partitions, catalog_only=ranking.catalog_only
        )
        self._ranking = ranking
        self._config = state
        self._kind_weight = np.array(list(events.kinds.values()), dtype=np.float64)
        self._store = EventStore(max_log_events)

    def fold(self, batch: Decoded) -> Folded:
        """Folds one decoded batch; `event` of what it returns are the events that it brought."""
        folded = self.state.fold(batch)
        events = batch.events
        kept = folded.event.numpy()
        if len(folded.forgot):
            # In log order, so the last of a subject's in a partition is what counts.
            last = {_place_of(events, at): at for at in folded.forgot.tolist()}
            self._store.forget(last)
            later = [at > last.get(_place_of(events, at), -1) for at in kept.tolist()]
            kept = kept[np.array(later, dtype=np.bool_)]
        if len(kept):
            self._store.append(_selected(events, kept))
        return folded

    def __len__(self) -> int:
        """Events at hand to train from."""
        return len(self._store)

    def data(self) -> TrainingData:
        """A copy of everything that a training run reads.

        Partitions are read one after another while catching up, so the log is put in order of event time here: the
        newest slice must be the newest of all users, and a graph must not hold what came later elsewhere. Of equal
        times the higher partition is the later one, as the engine has it where it reads several as one. Where the
        events name no item as the catalog does, the log says so.
        """
        stored = self._store.newest()
        sessioned = _sessions(stored, self._config.session_gap_s)
        order = stored.partition.sort(stable=True).indices
        order = order[stored.time_ms[order].sort(stable=True).indices]
        item_ids, number = self._items(stored.item_ids)
        previous = sessioned.previous
        log = EventLog(
            stored.user[order],
            number[stored.item][order],
            stored.time_ms[order],
            stored.kind[order],
            stored.value[order],
            sessioned.ordinal[order],
            torch.where(previous >= 0, number[previous.clamp_min(0)], -1)[order],
        )
        return TrainingData(
            log, stored.users, *self._described(item_ids), item_ids, self._kind_weight, self._config, self._ranking
        )

    def _items(self, named: Sequence[str]) -> tuple[list[str], Tensor]:
        """Ids of all items, those of the catalog first, and the number of each in `named`."""
        state = self.state
        number = {state.items.id_of(row): at for at, row in enumerate(sorted(state.catalog.rows()))}
        problem = overlap_problem(named, number)
        if problem:
            _log.warning("%s", problem)
        at = [number.setdefault(item_id, len(number)) for item_id in named]
        return list(number), torch.tensor(at, dtype=torch.int64)

    def _described(self, item_ids: Sequence[str]) -> _Described:
        """What the catalog says of items; one that the state does not know is not to be recommended."""
        catalog = self.state.catalog
        found = self.state.items.find(item_ids).numpy()
        at = np.flatnonzero(found >= 0)
        rows = found[at]
        content = torch.zeros(len(item_ids), catalog.content_dim)
        content[at] = catalog.contents()[rows]
        group, deleted = np.full(len(item_ids), NO_GROUP), np.ones(len(item_ids), np.bool_)
        group[at] = catalog.group[rows]
        deleted[at] = ~catalog.named(rows) if self._ranking.catalog_only else catalog.deleted(rows)
        from_ms, until_ms = np.full(len(item_ids), ALWAYS.min), np.full(len(item_ids), ALWAYS.max)
        from_ms[at], until_ms[at] = catalog.windows(rows)
        return _Described(content, group, deleted, from_ms, until_ms)


class _Described(NamedTuple):
    """Columns of `TrainingData` that the catalog gives."""

    content: Tensor
    group: NDArray[np.int64]
    deleted: NDArray[np.bool_]
    from_ms: NDArray[np.int64]
    until_ms: NDArray[np.int64]


def _place_of(events: EventBatch, at: int) -> tuple[str, int]:
    """Whose an event is, and of which partition."""
    return subject_key(events.user_id[at], events.session_id[at]), int(events.partition[at])


def _selected(events: EventBatch, at: NDArray[np.int64]) -> EventBatch:
    """The events at these positions; the batch itself where that is all of it, in its order."""
    return events if np.array_equal(at, np.arange(len(events))) else events.select(at)


def _sessions(stored: StoredEvents, gap_s: float) -> Sessioned:
    """Cuts the stored events into sessions by the engine's own rule.

    What the state says of them isn't taken: there, who or what was evicted meanwhile cuts a session in two, and a user
    who comes back counts from 1 again.
    """
    # A user who is in several partitions has sessions in each, as in the state.
    one_of = stored.user * (int(stored.partition.max()) + 1 if len(stored.partition) else 1) + stored.partition
    users, user = one_of.unique(return_inverse=True)
    no_generation = Table(len(stored.item_ids), dtype=torch.int32)  # no number here is ever given away
    sessions = Sessions(len(users), gap_s, items=no_generation)
    return sessions.fold(user, stored.session_name, stored.item, stored.time_ms)
