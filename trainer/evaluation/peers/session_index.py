"""The sessions of a log by recency, and by the items in them: what session neighborhoods search.

A log that goes on is indexed anew before each question, so the passes over all its events are compiled, without a sort.

Shapes: S sessions, E events kept, P pairs of item and session, C candidates, N items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.kernel_cache import compiled
from trainer.data.log import Events, Ints


@dataclass(frozen=True)
class Query:
    """A running session, as the index is asked about it.

    Attributes:
        item: [L] distinct items, oldest first by their latest event.
        age: [L] how many events before the newest one that was; 0 is the newest.
        length: events of the running session, repeats included.
        time: of the newest event.
        session: number of the running session.
    """

    item: Ints
    age: Ints
    length: int
    time: float
    session: int


@dataclass(frozen=True)
class Candidates:
    """Sessions that share an item with the running one.

    Attributes:
        row: [C] rising: the most recent one comes last.
        overlap: [C] sum of the weights of the shared items.
        age: [C] age in the running session of the newest shared item.
        item: [C] that item.
    """

    row: Ints
    overlap: NDArray[np.float64]
    age: Ints
    item: Ints

    def select(self, index: Ints) -> Candidates:
        return Candidates(self.row[index], self.overlap[index], self.age[index], self.item[index])


class SessionIndex:
    """Sessions cut to their last events. Added events are indexed anew when the index is next asked.

    A row is a session's place by the log order of its last event, so a higher row is a more recent session.

    Attributes:
        window: how many events are kept of a session, and of a history: users without sessions have thousands.
        count: [N] events of each item, of whole sessions.
        item: [E] by row and then by log order.
        start: [S + 1] where the events of a row begin in `item`.
        latest: [E] whether the session has the item no more after this event.
        time: [S] of the last event.
        timed: whether `time` is in seconds, not a mere order.
        frequency: [N] in how many sessions the item is.
    """

    def __init__(self, events: Events, window: int) -> None:
        if window < 1:
            raise ValueError(f"window must be >= 1, got {window}")
        self.window = window
        self.timed = events.timed
        self._events = events
        self._known: list[Ints] = []
        self._indexed = True
        self.count = np.zeros(len(events.items))
        self._index(np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.time)

    def add(self, positions: Ints) -> None:
        """Events later than all before, in log order."""
        if len(positions):
            self._known.append(positions)
            self._indexed = False
            self.count += np.bincount(self._events.item[positions], minlength=len(self.count))

    def refresh(self) -> None:
        """Indexes what was added."""
        if not self._indexed:
            self._known = [np.concatenate(self._known)]
            self._index(self._known[0])
            self._indexed = True

    def query(self, history: Ints) -> Query:
        """Reads the last events of a history, which must have one."""
        recent = history[-self.window :]
        item, age = np.unique(self._events.item[recent][::-1], return_index=True)
        order = np.argsort(-age)
        newest = int(recent[-1])
        session = int(self._events.session[newest])
        return Query(item[order], age[order], len(recent), float(self._events.time[newest]), session)

    def candidates(self, query: Query, weight: NDArray[np.float64], most: int) -> Candidates:
        """The `most` recent sessions with an item of the query, whose items weigh [L]; never the running one."""
        # Of one item no more sessions are needed than of all: an older one is behind `most` that have that item. One
        # more is read, as the running session itself drops out.
        end = self._of_item[query.item + 1]
        begin = np.maximum(self._of_item[query.item], end - most - 1)
        row, length = self._row[spans(begin, end)], end - begin
        overlap = np.asarray(np.bincount(row, np.repeat(weight, length), minlength=len(self)), np.float64)
        place = np.empty(len(self), np.int64)
        place[row] = np.repeat(np.arange(len(query.item)), length)  # the newest item is written last and stays
        is_candidate = np.zeros(len(self), np.bool_)
        is_candidate[row] = True
        own = self._row_of[query.session]
        if own >= 0:
            is_candidate[own] = False
        found = np.flatnonzero(is_candidate)[-most:]
        place = place[found]
        return Candidates(found, overlap[found], query.age[place], query.item[place])

    def events_of(self, row: Ints) -> tuple[Ints, Ints]:
        """Places in `item` of all events of these sessions, and which of the rows each belongs to."""
        begin, end = self.start[row], self.start[row + 1]
        return spans(begin, end), np.repeat(np.arange(len(row)), end - begin)

    def _index(self, positions: Ints) -> None:
        events = self._events
        session = events.session[positions].astype(np.int64, copy=False)
        # Step 1. Order sessions by their last event.
        self._row_of = np.full(len(events.sessions), -1, np.int64)
        length = np.zeros(len(events.sessions), np.int64)
        count = order_sessions(session, self.window, self._row_of, length)
        # Step 2. Keep the last events of each.
        self.start = np.concatenate((np.zeros(1, np.int64), np.cumsum(length[:count])))
        kept = np.empty(self.start[-1], np.int64)
        keep_last(session, self._row_of, self.start, kept)
        kept = positions[kept]
        self.item = events.item[kept].astype(np.int64, copy=False)
        self.time = events.time[kept[self.start[1:] - 1]]
        # Step 3. Turn it around: the sessions of each item, rising.
        self.latest = np.zeros(len(kept), np.bool_)
        self.frequency = np.zeros(len(events.items), np.int64)
        mark_latest(self.item, self.start, self.latest, self.frequency)
        self._of_item = np.concatenate((np.zeros(1, np.int64), np.cumsum(self.frequency)))
        self._row = np.empty(self._of_item[-1], np.int64)
        list_rows(self.item, self.start, self.latest, self._of_item, self._row)


@compiled("i8(i8[::1], i8, i8[::1], i8[::1])")
def order_sessions(session: Ints, window: int, row_of: Ints, length: Ints) -> int:
    """Numbers the sessions of events in log order: a higher row has a later last event.

    Args:
        session: of each event.
        window: how many events count of a session.
        row_of: [sessions] -1 at first; gets the rows of those that have events.
        length: [sessions] 0 at first; gets the events of each row, first row first.

    Returns:
        How many rows there are.
    """
    count = 0
    for e in range(len(session) - 1, -1, -1):
        if row_of[session[e]] < 0:
            row_of[session[e]] = count
            count += 1
        row = row_of[session[e]]
        length[row] = min(window, length[row] + 1)
    for s in range(len(row_of)):
        if row_of[s] >= 0:
            row_of[s] = count - 1 - row_of[s]
    length[:count] = length[:count][::-1].copy()
    return count


@compiled("void(i8[::1], i8[::1], i8[::1], i8[::1])")
def keep_last(session: Ints, row_of: Ints, start: Ints, kept: Ints) -> None:
    """Fills `kept` with the numbers of the last events of each row, in log order, from `start` of the row on."""
    end = start[1:].copy()
    for e in range(len(session) - 1, -1, -1):
        row = row_of[session[e]]
        if end[row] > start[row]:
            end[row] -= 1
            kept[end[row]] = e


@compiled("void(i8[::1], i8[::1], b1[::1], i8[::1])")
def mark_latest(item: Ints, start: Ints, latest: NDArray[np.bool_], frequency: Ints) -> None:
    """Marks the last event of each item in each row, and counts for each item the rows that have it."""
    newest = np.full(len(frequency), -1)
    for row in range(len(start) - 1):
        for at in range(start[row + 1] - 1, start[row] - 1, -1):
            if newest[item[at]] != row:
                newest[item[at]] = row
                latest[at] = True
                frequency[item[at]] += 1


@compiled("void(i8[::1], i8[::1], b1[::1], i8[::1], i8[::1])")
def list_rows(item: Ints, start: Ints, latest: NDArray[np.bool_], of_item: Ints, rows: Ints) -> None:
    """Fills `rows` with the rows that have each item, rising, from `of_item` of the item on."""
    end = of_item[:-1].copy()
    for row in range(len(start) - 1):
        for at in range(start[row], start[row + 1]):
            if latest[at]:
                rows[end[item[at]]] = row
                end[item[at]] += 1


def nearest(similarity: NDArray[np.float64], k: int) -> Ints:
    """The k highest, rising by place; of equal ones the later places, which are the more recent sessions."""
    if len(similarity) <= k:
        return np.arange(len(similarity))
    edge = np.partition(similarity, len(similarity) - k)[len(similarity) - k]
    kept = similarity > edge
    equal = np.flatnonzero(similarity == edge)
    kept[equal[len(equal) - (k - int(kept.sum())) :]] = True
    return np.flatnonzero(kept)


def spans(begin: Ints, end: Ints) -> Ints:
    """All places of the ranges [begin, end), one range after the other."""
    length = end - begin
    total = np.cumsum(length)
    return np.arange(total[-1] if len(total) else 0) + np.repeat(begin - total + length, length)
