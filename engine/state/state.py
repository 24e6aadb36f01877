"""The whole state: one slice per partition of the events topic, the catalog, and what is derived from them all.

Shapes: E events in a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import EventsConfig, KafkaConfig, StateConfig
from engine.events.batch import CatalogItem, Decoded, EventBatch
from engine.state.catalog import Catalog
from engine.state.content import content_encoder
from engine.state.folded import Folded
from engine.state.id_map import IdMap
from engine.state.merged import MergedGraph, Placed, newest
from engine.state.nodes import Nodes
from engine.state.people import People
from engine.state.popularity import TopItems, scaled
from engine.state.related import MergedRelations
from engine.state.ring import Neighbors
from engine.state.slice import SavedSlice, Slice, SliceFolded, subject_key

__all__ = ["Folded", "State", "subject_key"]

_EVENTS_TOPIC = str(KafkaConfig.model_fields["events_topic"].default)


_EMPTY = torch.zeros(0, dtype=torch.int64)
_ITEMS_IN_HAND = 4096  # new items of the catalog that may have rows before the oldest give theirs back


class State:
    """A pure function of the log: the same records of every partition give the same state, however they were batched.

    Args:
        events_topic: whose partitions are the slices; all other topics hold the catalog.
        partitions: of the events topic in all, those of other processes included; they share `max_users`.

    Attributes:
        slices: by partition, rising.
    """

    def __init__(
        self,
        config: StateConfig,
        events: EventsConfig,
        *,
        events_topic: str = _EVENTS_TOPIC,
        partitions: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self._config, self._events = config, events
        self.events_topic = events_topic
        self._device = device
        self.partitions = partitions
        self.half_lives_s = config.half_lives_s
        self.items = IdMap()
        self.catalog = Catalog(content_encoder(config), config.features_dim, self.item_rows, config.max_items)
        self.popularity = TopItems(config.popular)
        self._scale = 0  # landmark of the merged scores
        self.slices: dict[int, Placed] = {}
        self._stride = -(-config.max_users // partitions)
        self.graph = MergedGraph.of(self.slices, config.history, config.neighbors, self._stride)
        self.people = People(self.slices, self._stride)
        self.relations = MergedRelations(self.slices, self.people, tuple(events.relations.values()))
        self._catalog_positions: dict[tuple[str, int], int] = {}
        self.items_folded = 0
        self._new: list[Tensor] = []  # item rows given in this batch

    # -- the fold -----------------------------------------------------------------------------------------------------

    def fold(self, batch: Decoded) -> Folded:
        """Folds one batch: first its catalog records, then its events; then its positions are reflected."""
        changed = [self._fold_items(batch.items)]
        gone_users, stale_users, relations, forgot = [_EMPTY], [_EMPTY], [_EMPTY], [_EMPTY]
        parts: list[tuple[Tensor, ...]] = []
        for (topic, partition), position in sorted(batch.positions.items()):
            if topic != self.events_topic:
                self._catalog_positions[topic, partition] = position
                continue
            placed = self.slices.get(partition) or self._add(partition, self.new_slice())
            at, events = _of_partition(batch.events, partition)
            folded = placed.slice.fold(events, position)
            changed.append(self._place(placed, folded))
            parts.append((at[folded.event], *self._shared(placed, folded)))
            changed.append(placed.item_of[folded.stale_items[placed.local(placed.item_of[folded.stale_items]) >= 0]])
            gone_users.append(folded.gone_users + placed.first_user)
            stale_users.append(torch.cat([folded.stale_users, folded.related_users]) + placed.first_user)
            relations.append(at[folded.relation])
            forgot.append(at[folded.forgot])
        parts = parts or [(_EMPTY, _EMPTY, _EMPTY, _EMPTY, _EMPTY.int())]
        event, user, item, previous, session = (torch.cat(column) for column in zip(*parts, strict=True))
        new = self._take_new()
        self._hide(new)
        self._rank(torch.cat([item, new]))
        return Folded(
            event,
            user,
            item,
            previous,
            session,
            torch.cat(changed).unique(),
            torch.cat(stale_users).unique(),
            new,
            torch.cat(gone_users),
            torch.cat(relations),
            torch.cat(forgot),
        )

    def open(self, partition: int, slice_: Slice) -> Folded:
        """Takes a partition in, as a snapshot has it or empty; returns what that changes."""
        placed = self._add(partition, slice_)
        local = _live(slice_.items)
        self._place_items(placed, local)
        self._rank_all()
        users, items = _live(slice_.users) + placed.first_user, placed.item_of[local]
        return _changed(users=users, items=items, new=self._take_new(), gone=_EMPTY)

    def drop(self, partition: int) -> Folded:
        """Leaves a partition out; what only it knew is gone. Returns what that changes."""
        placed = self.slices.pop(partition)
        users = _live(placed.slice.users) + placed.first_user
        items = self._release(placed.displace(_live(placed.slice.items)))
        self._rank_all()
        return _changed(users=_EMPTY, items=items, new=_EMPTY, gone=users)

    def graph_of(self, slices: Mapping[int, tuple[int, Tensor, SavedSlice]]) -> MergedGraph:
        """A graph over saved slices, each with its slot and the rows of its items, that nothing changes any more."""
        placed = {}
        for partition, (slot, item_of, saved) in slices.items():
            slice_ = self.new_slice()
            slice_.restore(replace(saved, users=(), items=(), targets=()))  # edges need no ids
            placed[partition] = Placed(slice_, slot, self._stride, self.item_rows)
            local = saved.tables["items.seen"].nonzero().squeeze(1)
            placed[partition].place(local, item_of[local])
        return MergedGraph.of(placed, self._config.history, self._config.neighbors, self._stride)

    def new_slice(self) -> Slice:
        """An empty slice that fits this state."""
        return Slice(self._config, self._events, self._stride, self._device)

    # -- what it says -------------------------------------------------------------------------------------------------

    @property
    def positions(self) -> dict[tuple[str, int], int]:
        """Next offset to fold by (topic, partition)."""
        events = {(self.events_topic, at): placed.slice.position for at, placed in list(self.slices.items())}
        return self._catalog_positions | events

    @property
    def catalog_positions(self) -> dict[tuple[str, int], int]:
        """Next offset to fold by (topic, partition) of the catalog."""
        return dict(self._catalog_positions)

    def restore_catalog(
        self,
        records: Sequence[CatalogItem],
        positions: Mapping[tuple[str, int], int],
        items_folded: int,
        content: Tensor | None = None,
    ) -> None:
        """Takes in what a snapshot says of the catalog, with the content [len(records), F] that it may have kept."""
        self._fold_items(records, content)
        self._catalog_positions.update(positions)
        self.items_folded = items_folded

    @property
    def user_count(self) -> int:
        """Users and anonymous sessions known."""
        return sum(len(placed.slice.users) for placed in list(self.slices.values()))

    @property
    def user_rows(self) -> int:
        """User rows there may be."""
        return self._stride * self.partitions

    @property
    def item_rows(self) -> int:
        """Item rows there may be."""
        return self._config.max_items * (self.partitions + 1) + _ITEMS_IN_HAND

    @property
    def newest_ms(self) -> int:
        """The latest time of an event, 0 before the first: the state's clock."""
        return max((placed.slice.newest_ms for placed in self.slices.values()), default=0)

    @property
    def events_folded(self) -> int:
        return sum(placed.slice.events_folded for placed in list(self.slices.values()))

    def users(self) -> Tensor:
        """[U] int64 rows of all users, rising."""
        rows = [torch.zeros(0, dtype=torch.int64)]
        for placed in self.slices.values():
            rows.append(_live(placed.slice.users) + placed.first_user)
        return torch.cat(rows).sort().values

    def find_users(self, subjects: Sequence[str]) -> list[int]:
        """Row of each subject_key, -1 where it is unknown; of several rows that with the newest event."""
        found: list[int] = self.people.find(subjects).tolist()
        return found

    def histories(self, rows: Sequence[int], n: int | None = None) -> Neighbors:
        """[B, n] the latest events of users, with those of the anonymous sessions that they were lately linked to.

        A producer that does not key its records by user spreads one over several slices: these are joined here, too.
        """
        own = self.graph.user_items.latest(torch.tensor(rows, dtype=torch.int64), n)
        for at, more in self.people.linked(rows).items():
            parts = self.graph.user_items.latest(torch.tensor([*more, rows[at]]), n)
            one_user_each = Neighbors(*(column[:, None] for column in parts.columns()))
            joined = newest(one_user_each, own.row.shape[1])
            for column, new in zip(own.columns(), joined.columns(), strict=True):
                column[at] = new[0]
        return own

    def home_of(self, row: int) -> tuple[int, Placed, int]:
        """Partition, slice and row in the slice of a user's row."""
        return self.people.home_of(row)

    def decayed_counts(self, rows: Tensor, half_life: int = 0) -> NDArray[np.float64]:
        """[R] `decayed_counts_under` one of `half_lives_s`."""
        return self.decayed_counts_under([half_life], rows.numpy())[:, 0]

    def decayed_counts_under(self, half_lives: Sequence[int], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """[R, h] decayed counts of items under some of `half_lives_s`, summed over the slices in their order.

        Those of a half-life are scaled alike, so only their ratios mean something. Those of a category are those of its
        `catalog.members`.
        """
        landmarks = [[placed.slice.popularity.landmark[h] for h in half_lives] for placed in self.slices.values()]
        scale = np.max(landmarks, axis=0, initial=0)
        total = np.zeros((len(rows), len(half_lives)))
        for placed, landmark in zip(self.slices.values(), landmarks, strict=True):
            local = placed.row_of.numpy()[rows] - 1
            score = placed.slice.popularity.table.array[np.maximum(local, 0)][:, half_lives]
            score[local < 0] = 0
            moved = np.array(landmark) - scale
            total += scaled(score, moved) if moved.any() else score
        return total

    # -- inside -------------------------------------------------------------------------------------------------------

    def _add(self, partition: int, slice_: Slice) -> Placed:
        taken = {placed.slot for placed in self.slices.values()}
        slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
        if slot >= self.partitions:
            raise ValueError(f"partition {partition} must be one of {self.partitions} in all, {len(taken)} are open")
        placed = Placed(slice_, slot, self._stride, self.item_rows)
        self.slices[partition] = placed
        # In place: the merged graph holds this very mapping.
        for at in sorted(self.slices):
            self.slices[at] = self.slices.pop(at)
        return placed

    def _fold_items(self, items: Sequence[CatalogItem], content: Tensor | None = None) -> Tensor:
        """Returns the rows that changed, each once."""
        if not items:
            return torch.zeros(0, dtype=torch.int64)
        changed = []
        while items:
            # New items take rows before those that make room for them give theirs back.
            room = self.item_rows - self.items.count
            part, items = items[:room], items[room:]
            rows = self._give(item.item_id for item in part)
            dropped = self.catalog.fold(rows.tolist(), part, content)
            content = None if content is None else content[len(part) :]
            self.items_folded += len(part)
            self._hide(rows.unique())
            changed += [rows, self._release(torch.tensor(dropped, dtype=torch.int64))]
        return torch.cat(changed).unique()

    def _place(self, placed: Placed, folded: SliceFolded) -> Tensor:
        """Gives rows of the process to the slice's new items, and takes back those of its gone ones."""
        released = folded.gone_items.unique()
        if len(released):
            released = self._release(placed.displace(released))
        named = torch.cat([folded.item, folded.related_items])
        new = named[placed.local(placed.item_of[named]) != named].unique()
        self._place_items(placed, new)
        return released

    def _place_items(self, placed: Placed, local: Tensor) -> None:
        ids = [(row, placed.slice.items.id_of(row)) for row in local.tolist()]
        known = [(row, item_id) for row, item_id in ids if item_id is not None]
        if known:
            rows = self._give(item_id for _, item_id in known)
            placed.place(torch.tensor([row for row, _ in known]), rows)

    def _give(self, ids: Iterable[str]) -> Tensor:
        """Rows of items, new ones where they have none."""
        rows = self.items.add(ids)
        given = self.items.take_given()
        if len(given):
            self.popularity.grow(len(self.items))
            self.catalog.grow(len(self.items))
            self.catalog.revive(given.numpy())
            self._new.append(given)
        return rows

    def _take_new(self) -> Tensor:
        new, self._new = self._new, []
        return torch.cat([_EMPTY, *new]).unique()

    def _release(self, rows: Tensor) -> Tensor:
        """Takes back the rows of items that neither a slice nor the catalog knows any more; all `rows` have changed."""
        held = torch.zeros(len(rows), dtype=torch.bool)
        for placed in self.slices.values():
            held |= placed.local(rows) >= 0
        for row in rows[~held].tolist():
            if row not in self.catalog and self.items.id_of(row):
                self.items.remove(row)
                self.catalog.remove(row)
        # The others are as items that only events have named, unless the catalog still says more.
        self.catalog.revive(np.array([row for row in rows[held].tolist() if row not in self.catalog], dtype=np.int64))
        if len(rows):
            self._rank_all()
        return rows

    def _shared(self, placed: Placed, folded: SliceFolded) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        previous = torch.where(folded.previous >= 0, placed.item_of[folded.previous.clamp_min(0)], -1)
        return folded.user + placed.first_user, placed.item_of[folded.item], previous, folded.session

    def _hide(self, rows: Tensor) -> None:
        at = rows.numpy()
        hidden = self.catalog.deleted(at)
        if (hidden != self.popularity.hidden(at)).any():
            self.popularity.hide(at, hidden)

    def _rank(self, rows: Tensor) -> None:
        """Brings the merged popularity of `rows` up to date, under the first half-life."""
        scale = max((placed.slice.popularity.landmark[0] for placed in self.slices.values()), default=0)
        if scale != self._scale:
            self._rank_all()
        elif len(rows):
            distinct = rows.unique()
            self.popularity.put(distinct.numpy(), self.decayed_counts(distinct))

    def _rank_all(self) -> None:
        self._scale = max((placed.slice.popularity.landmark[0] for placed in self.slices.values()), default=0)
        self._hide(torch.arange(len(self.items)))
        self.popularity.replace(self.decayed_counts(torch.arange(len(self.items))))


def _of_partition(events: EventBatch, partition: int) -> tuple[Tensor, EventBatch]:
    """Positions of one partition's events, and those events."""
    mine = events.partition == partition
    if mine.all():
        return torch.arange(len(events)), events
    at = np.flatnonzero(mine)
    if len(at) and at[-1] - at[0] + 1 == len(at):
        # As a poll hands them over. A slice of a list costs a tenth of its elements one by one.
        return torch.from_numpy(at), events.select(slice(int(at[0]), int(at[-1]) + 1))
    return torch.from_numpy(at), events.select(at)


def _live(nodes: Nodes) -> Tensor:
    """[R] int64 rows in use, rising."""
    return nodes.seen.data[: nodes.rows].nonzero().squeeze(1)


def _changed(*, users: Tensor, items: Tensor, new: Tensor, gone: Tensor) -> Folded:
    return Folded(_EMPTY, users, _EMPTY, _EMPTY, _EMPTY.int(), items.unique(), _EMPTY, new, gone, _EMPTY, _EMPTY)
