"""The whole state: one slice per partition of the events topic, the catalog, and what is derived from them all.

Shapes: E events in a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import EventsConfig, KafkaConfig, StateConfig
from engine.events.batch import CatalogItem, Decoded
from engine.state.availability import Availability
from engine.state.catalog import Catalog
from engine.state.catalog_records import CatalogRecords
from engine.state.content import content_encoder
from engine.state.folded import (
    NO_ROWS,
    Folded,
    Part,
    Rows,
    SliceFolded,
    changed_rows,
    distinct,
    joined,
    joined_columns,
)
from engine.state.id_map import IdMap
from engine.state.item_rows import ItemRows
from engine.state.merged import MergedGraph, Placed, free_slot, newest
from engine.state.merged_kernels import Counts, latest_of_slices
from engine.state.merged_popularity import MergedPopularity
from engine.state.people import People
from engine.state.related import MergedRelations
from engine.state.ring import History, Neighbors, no_edges
from engine.state.slice import SavedSlice, Slice
from engine.state.tombstones import named

__all__ = ["Folded", "State"]

_EVENTS_TOPIC = str(KafkaConfig.model_fields["events_topic"].default)


_ITEMS_IN_HAND = 4096  # new items of the catalog that may have rows before the oldest give theirs back


class State:
    """A pure function of the log: the same records of every partition give the same state, however they were batched.

    Only which items may be shown depends on the time, too, and with it which items are the most popular of these.

    Args:
        events_topic: whose partitions are the slices; all other topics hold the catalog.
        partitions: of the events topic in all, those of other processes included; they share `max_users`.
        catalog_only: whether only items of the catalog may be shown.

    Attributes:
        slices: by partition, rising.
        availability: which items may be shown now.
        records: the records of the catalog.
        catalog_began: by (topic, partition), the first offset that was folded into the catalog.
    """

    def __init__(
        self,
        config: StateConfig,
        events: EventsConfig,
        *,
        events_topic: str = _EVENTS_TOPIC,
        partitions: int = 1,
        catalog_only: bool = False,
    ) -> None:
        self._config, self._events = config, events
        self.events_topic = events_topic
        self.partitions = partitions
        self.half_lives_s = config.half_lives_s
        self.items = IdMap()
        self.records = CatalogRecords(config.max_items, config.catalog_bytes)
        self.catalog = Catalog(content_encoder(config), config.features_dim, self.item_rows, self.records)
        self.availability = Availability(self.catalog, catalog_only=catalog_only)
        self.slices: dict[int, Placed] = {}
        self._merged = MergedPopularity(self.slices, config.half_lives_s, config.popular)
        self.popularity = self._merged.top
        self._rows = ItemRows(self.items, self.records, self.catalog, self.availability, self.popularity, self.slices)
        self._stride = -(-config.max_users // partitions)
        self.graph = MergedGraph.of(self.slices, config.history, config.neighbors, self._stride)
        self.people = People(self.slices, self._stride, config.max_session_users)
        self.relations = MergedRelations(self.slices, self.people, tuple(events.relations.values()))
        self._catalog_positions: dict[tuple[str, int], int] = {}
        self.catalog_began: Mapping[tuple[str, int], int] = {}
        self.items_folded = 0
        self.items_redelivered = 0  # says nothing of the log, so it is not saved

    # -- the fold -----------------------------------------------------------------------------------------------------

    def fold(self, batch: Decoded) -> Folded:
        """Folds one batch: first its catalog records, then its events; then its positions are reflected."""
        changed = [self._fold_items(batch.items)]
        gone_users: list[Rows] = []
        stale_users: list[Rows] = []
        relations: list[Rows] = []
        forgot: list[Rows] = []
        parts: list[Part] = []
        for (topic, partition), position in sorted(batch.positions.items()):
            if topic != self.events_topic:
                self._catalog_positions[topic, partition] = position
                continue
            placed = self.slices.get(partition) or self._add(partition, self.new_slice())
            at, events = batch.events.of_partition(partition)
            folded = placed.slice.fold(events, position)
            changed += self._place(placed, folded)
            if len(folded.event):
                parts.append((at[folded.event], *placed.shared(folded)))
            for rows in (folded.stale_users, folded.related_users):
                if len(rows):
                    stale_users.append(rows + placed.first_user)
            if len(folded.gone_users):
                gone_users.append(folded.gone_users + placed.first_user)
            relations.append(at[folded.relation])
            forgot.append(at[folded.forgot])
        event, user, item, previous, session = joined_columns(parts)
        new = self._rows.take_new()
        self._rank(np.concatenate([item, new, self._rows.take_used()]))
        columns = (
            event, user, item, previous, session, distinct(changed), distinct(stale_users), new,
            joined(gone_users), joined(relations), joined(forgot),
        )  # fmt: skip
        return Folded(*map(torch.from_numpy, columns))

    def open(self, partition: int, slice_: Slice) -> Folded:
        """Takes a partition in, as a snapshot has it or empty; returns what that changes."""
        placed = self._add(partition, slice_)
        local = slice_.items.live()
        self._rows.place(placed, local)
        new = self._rows.take_new()
        self._rows.take_used()
        self._rank_all()
        users, items = slice_.users.live() + placed.first_user, placed.item_of[local]
        return changed_rows(users=users, items=items, new=new, gone=NO_ROWS)

    def drop(self, partition: int) -> Folded:
        """Leaves a partition out; what only it knew is gone. Returns what that changes."""
        placed = self.slices.pop(partition)
        users = placed.slice.users.live() + placed.first_user
        items = self._release(placed.displace(placed.slice.items.live()))
        self._rank_all()
        return changed_rows(users=NO_ROWS, items=items, new=NO_ROWS, gone=users)

    def pass_time(self, now_ms: int, limit: int) -> Folded | None:
        """Lets items become available, and cease to be, as the wall clock has it; returns what that changes, if at all.

        Of items whose time has come about `limit` are looked at: call it again while `availability` is not settled.
        """
        timed = self.availability.pass_time(now_ms, limit)
        if len(timed) == 0:
            return None
        self._rows.hide(timed)
        nothing = changed_rows(users=NO_ROWS, items=NO_ROWS, new=NO_ROWS, gone=NO_ROWS)
        return replace(nothing, timed=torch.from_numpy(timed))

    def graph_of(self, slices: Mapping[int, tuple[int, Rows, SavedSlice]]) -> MergedGraph:
        """A graph over saved slices, each with its slot and the rows of its items, that nothing changes any more."""
        placed = {}
        for partition, (slot, item_of, saved) in slices.items():
            slice_ = self.new_slice()
            slice_.restore(replace(saved, users=(), items=(), targets=()))  # edges need no ids
            placed[partition] = Placed(slice_, slot, self._stride, self.item_rows)
            local = saved.tables["items.seen"].numpy().nonzero()[0]
            placed[partition].place(local, item_of[local])
        return MergedGraph.of(placed, self._config.history, self._config.neighbors, self._stride)

    def new_slice(self) -> Slice:
        """An empty slice that fits this state."""
        return Slice(self._config, self._events, self._stride)

    def delete_items(self, item_ids: Sequence[str]) -> Folded:
        """Deletes items as their tombstones would have done; returns the rows that this changes."""
        records = self.items_folded
        items = self._fold_items([CatalogItem(item_id, deleted=True) for item_id in item_ids])
        self.items_folded = records
        return changed_rows(users=NO_ROWS, items=items, new=self._rows.take_new(), gone=NO_ROWS)

    def take_found(self, found: Sequence[CatalogItem], content: Tensor | None = None) -> Folded:
        """Takes in the newest records of items that `records` seeks; returns what that changes."""
        rows = self.items.find(item.item_id for item in found).numpy()
        at = [place for place, row in enumerate(rows.tolist()) if self.records.sought(row)]
        kept = None if content is None else content[at]
        dropped = self.catalog.fold(rows[at].tolist(), [found[place] for place in at], kept, back=True)
        self._rows.judge(rows[at])
        items = distinct([rows[at], self._release(np.array(dropped, np.int64))])
        return changed_rows(users=NO_ROWS, items=items, new=NO_ROWS, gone=NO_ROWS)

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
        *,
        used: int = 0,
        dropped: bool = False,
    ) -> None:
        """Takes in what a snapshot says of the catalog, once the slices are open.

        Args:
            content: [len(records), F] that the snapshot may have kept of them.
            used: how many of the records, the first ones, were kept only because events named their items.
            dropped: whether records may have been dropped before.
        """
        self._fold_items(records[used:], None if content is None else content[used:])
        if dropped:
            self.records.assume_dropped()
            self.records.seek()
            self.take_found(records[:used], None if content is None else content[:used])
            self.records.end_search(found=False)
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
        """The state's clock: the latest time that events have shown, 0 before the first."""
        return self._merged.newest_ms

    @property
    def popularity_scale(self) -> int:
        """Doublings by which the scores of `popularity` are scaled down; they compare over time once it is the same."""
        return self._merged.scale

    @property
    def redelivered(self) -> int:
        """Records that came again, and were skipped."""
        return self.items_redelivered + sum(placed.slice.redelivered for placed in list(self.slices.values()))

    @property
    def events_folded(self) -> int:
        return sum(placed.slice.events_folded for placed in list(self.slices.values()))

    def users(self) -> Tensor:
        """[U] int64 rows of all users, rising."""
        rows = [placed.slice.users.live() + placed.first_user for placed in self.slices.values()]
        return torch.from_numpy(np.sort(joined(rows)))

    def find_users(self, subjects: Sequence[str]) -> list[int]:
        """Row of each subject_key, -1 where it is unknown; of several rows that with the newest event."""
        found: list[int] = self.people.find(subjects).tolist()
        return found

    def histories(self, rows: Sequence[int], n: int | None = None) -> Neighbors:
        """[B, n] what `remembered` gives, as tensors."""
        return Neighbors.of(self.remembered(rows, n))

    def remembered(self, rows: Sequence[int], n: int | None = None) -> History:
        """[B, n] the latest events of users, with those of the anonymous sessions that they were lately linked to.

        A producer that does not key its records by user spreads one over several slices: these are joined here, too.
        """
        edges = self.graph.user_items
        own = no_edges(len(rows), edges.size if n is None else min(n, edges.size))
        latest_of_slices(edges.rooms(), np.array(rows, np.int64), False, *own)
        for at, more in self.people.linked(rows).items():
            parts = edges.latest(torch.tensor([*more, rows[at]]), n)
            one_user_each = Neighbors(*(column[:, None] for column in parts.columns()))
            own.put([at], newest(one_user_each, own.row.shape[1]).arrays())
        return own

    def home_of(self, row: int) -> tuple[int, Placed, int]:
        """Partition, slice and row in the slice of a user's row."""
        return self.people.home_of(row)

    def decayed_counts(self, rows: Rows, half_life: int = 0) -> NDArray[np.float64]:
        """[R] `decayed_counts_under` one of `half_lives_s`."""
        return self.decayed_counts_under([half_life], rows)[:, 0]

    def decayed_counts_under(self, half_lives: Sequence[int], rows: Rows) -> NDArray[np.float64]:
        """[R, h] decayed counts of items under some of `half_lives_s`, summed over the slices in their order.

        Those of a half-life are scaled alike, so only their ratios mean something. Those of a category are those of its
        `catalog.members`.
        """
        return self._merged.counts_under(half_lives, rows)

    def counts(self) -> Counts:
        """The same as compiled code reads it. It holds for as long as nothing is folded."""
        return self._merged.counts()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _add(self, partition: int, slice_: Slice) -> Placed:
        slot = free_slot(self.slices.values())
        if slot >= self.partitions:
            raise ValueError(f"partition {partition} must be one of {self.partitions} in all, {slot} are open")
        placed = Placed(slice_, slot, self._stride, self.item_rows)
        self.slices[partition] = placed
        # In place: the merged graph holds this very mapping.
        for at in sorted(self.slices):
            self.slices[at] = self.slices.pop(at)
        return placed

    def _fold_items(self, items: Sequence[CatalogItem], content: Tensor | None = None) -> Rows:
        """Returns the rows that changed, each once."""
        changed: list[Rows] = []
        while items:
            # New items take rows before those that make room for them give theirs back.
            room = self.item_rows - self.items.count
            part = named(items[:room], self.items, self.catalog)
            items = items[len(part) :]
            rows = self._rows.give(item.item_id for item in part)
            dropped = self.catalog.fold(rows.tolist(), part, content)
            content = None if content is None else content[len(part) :]
            self.items_folded += len(part)
            self._rows.judge(rows)
            changed += [rows, self._release(np.array(dropped, np.int64))]
        return distinct(changed)

    def _place(self, placed: Placed, folded: SliceFolded) -> list[Rows]:
        """Gives rows of the process to the slice's new items, and takes back those of its gone ones.

        Returns:
            Items that have changed thereby, and those that remembered who is gone.
        """
        changed = []
        if len(folded.gone_items):
            changed.append(self._release(placed.displace(np.unique(folded.gone_items))))
        self._rows.place(placed, placed.unplaced(joined([folded.item, folded.related_items])))
        if len(folded.stale_items):
            rows = placed.item_of[folded.stale_items]
            changed.append(rows[placed.row_of[rows] > 0])
        return changed

    def _release(self, rows: Rows) -> Rows:
        """Takes back the rows of items that neither a slice nor the catalog knows any more; all `rows` have changed."""
        if len(rows):
            self._rows.release(rows)
            self._rank_all()
        return rows

    def _rank(self, rows: Rows) -> None:
        if self._merged.outdated:
            self._rank_all()
        else:
            self._merged.update(rows)

    def _rank_all(self) -> None:
        self._merged.update_all(len(self.items))
