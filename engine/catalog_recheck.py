"""After a restore: has the items topic still what the snapshot's catalog holds?

An item that was deleted while no engine ran has left the topic without a trace once compaction has removed its
tombstone. Where that may have happened, the topic is read whole: records that the snapshot reflects are noted, not
folded, and items that no record names any more are deleted, as their tombstones would have done. Until then the engine
is not ready and takes no snapshot.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.events.batch import CatalogItem, Decoded, Record
from engine.events.codec import Decoder
from engine.events.records import Records
from engine.events.source import Assignment, EventSource, Partition
from engine.state.state import State

_log = logging.getLogger(__name__)


def may_miss_deletions(assignment: Assignment, positions: Mapping[Partition, int]) -> bool:
    """Whether a tombstone may have been removed that lay between these positions in the items topic and its end."""

    def missed(partition: Partition, position: int) -> bool:
        held = assignment.partitions.get(partition)
        if held is None or position >= held.end:  # the end of a log never goes back
            return False
        shown_from = assignment.deletions_from.get(partition)
        # A log that nobody tells of, and that has lost its begin, is shortened by retention: what it lacks is not
        # deleted.
        return held.begin == 0 if shown_from is None else position < shown_from

    return any(missed(partition, position) for partition, position in positions.items())


@dataclass(frozen=True)
class Doubts:
    """What a restored catalog may lack of its topic.

    Attributes:
        deletions: items may have been deleted, and no record tells it any more.
        attributes: the version of Ousel that took the snapshot dropped the attributes of items.
    """

    deletions: bool = False
    attributes: bool = False

    def __bool__(self) -> bool:
        return self.deletions or self.attributes


NO_DOUBTS = Doubts()


class CatalogRecheck:
    """Watches the items topic come by from its begin. For the engine's thread.

    Args:
        positions: by (topic, partition) of the items topic, the offset below which the restored catalog has all.

    Attributes:
        doubts: why the topic is read.
    """

    def __init__(
        self,
        assignment: Assignment,
        positions: Mapping[Partition, int],
        decoder: Decoder,
        max_items: int,
        doubts: Doubts,
    ) -> None:
        self.doubts = doubts
        self._positions = positions
        self._ends = {partition: assignment.partitions[partition].end for partition in positions}
        self._decoder = decoder
        self._max_items = max_items
        self._named: set[str] = set()
        self._read: dict[Partition, int] = {}
        self._readable = True
        self._events = False
        if doubts.attributes:
            _log.info("catalog: the items topic is read whole, for the snapshot's version of Ousel kept no attributes")
        if doubts.deletions:
            _log.info("catalog: the items topic is read whole, for items may have been deleted since the snapshot")

    def sift(self, records: Sequence[Record], state: State) -> tuple[Sequence[Record], int]:
        """The records that are to be folded, and how many are not, since the restored catalog reflects them."""
        packed = Records.packed(records)
        known = np.zeros(len(packed), np.bool_)
        first = 0
        for run in packed.runs:
            part, first = slice(first, first + run.count), first + run.count
            position = self._positions.get((run.topic, run.partition))
            if position is None:
                self._events = True
            else:
                known[part] = packed.offset[part] < position
        self._read |= {partition: end for partition, end in packed.positions().items() if partition in self._positions}
        if not known.any():
            return records, 0
        lacking = self._note_known(packed, np.flatnonzero(known), state)
        known[lacking] = False
        state.items_redelivered += int(known.sum())
        return Records.packed(packed.take(np.flatnonzero(~known))), int(known.sum())

    def note(self, batch: Decoded) -> None:
        """What became of the records that are folded: items that are named stay, those of dead letters as they were."""
        self._named.update(item.item_id for item in batch.items)
        for rejection in batch.rejected:
            partition = rejection.record.topic, rejection.record.partition
            if partition in self._positions:
                self._note_rejected(rejection.record)

    def gone(self, state: State, source: EventSource) -> list[str] | None:
        """The items to be deleted, once the topic has been read; None until then."""
        if not (self._events or source.caught_up()):
            return None
        if not self.doubts.deletions:
            return []
        lag = source.lag_by_partition()
        read = all(self._read.get(at, 0) >= end or lag.get(at, 0) == 0 for at, end in self._ends.items())
        if not (read and self._readable):
            _log.error(
                "catalog: the items topic can't be read whole, so items that were deleted since the snapshot may be"
                " shown; send their deletions again"
            )
            return []
        live = (item.item_id for item in state.catalog.records() if not item.deleted)
        gone = [item_id for item_id in live if item_id not in self._named]
        _log.info("catalog: %d of its items are in the topic no more, and are deleted", len(gone))
        return gone

    def _note_known(self, packed: Records, at: NDArray[np.int64], state: State) -> list[int]:
        """Notes what the records at these places name; returns the places of those that the catalog lacks."""
        records = packed.take(at)
        decoded = self._decoder.decode(records)
        self.note(decoded)  # a dead letter among them has become one when it was folded first
        rejected = {(rejection.record.partition, rejection.record.offset) for rejection in decoded.rejected}
        places = [
            place
            for place, record in zip(at.tolist(), records, strict=True)
            if (record.partition, record.offset) not in rejected
        ]
        lacking: list[int] = []
        folded: dict[int, CatalogItem] = {}  # by row, what these records will have made of the catalog
        for place, item in zip(places, decoded.items, strict=True):
            row = state.items.get(item.item_id)
            if self.doubts.attributes and row is not None:
                held = folded.get(row) or state.catalog.record(row)
                if held is not None and _differ_in_attributes(item, held):
                    folded[row] = item
                    lacking.append(place)
                    continue
            # As after its limit was raised. A full catalog has let it go, and would let another go for it; the record
            # of an item that events name comes back by itself, see `CatalogRecall`.
            if len(state.catalog) - state.records.used + len(lacking) < self._max_items and not item.deleted:
                lacking += [place] if row is None or row not in state.catalog else []
        return lacking

    def _note_rejected(self, record: Record) -> None:
        if record.key is None:
            self._readable = False  # nobody knows which item it named
            return
        name = record.key.decode(errors="replace")
        self._named |= {name, name.strip('"')}


def _differ_in_attributes(item: CatalogItem, held: CatalogItem) -> bool:
    """Whether a record says the same of an item as the catalog's, but for its attributes.

    Of several such records in the log each replaces the one before, so that the newest is what the catalog has.
    """
    return item != held and replace(item, attributes=()) == replace(held, attributes=())
