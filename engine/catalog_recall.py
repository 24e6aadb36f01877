"""Brings back the catalog records that were dropped before events named their items.

The catalog keeps the records of the items updated last, and of all others that events name. An item may be named only
after its record was dropped: the events come later in time, or a start without a snapshot reads the items topic first.
So once the engine has caught up, and from then on every `state.catalog_recall_s` where any such item came, the items
topic is read again for them, in a thread of its own, up to where it was folded. With that the catalog follows from the
log alone, however the two topics were interleaved.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import orjson

from engine import metrics
from engine.config import Config
from engine.errands import begun, in_background
from engine.events.batch import CatalogItem, QuotedTombstone, Record
from engine.events.item_codec import ItemDecoder
from engine.events.payload import PayloadError
from engine.events.source import Partition
from engine.failures import told
from engine.pace import Pace
from engine.state.catalog_records import RecordPool
from engine.state.folded import Folded
from engine.state.state import State

_log = logging.getLogger(__name__)

# Reads the items topic from its begin up to these offsets; it may go on behind them.
ReadItems = Callable[[Mapping[Partition, int]], Iterable[Sequence[Record]]]

_SHARE = 0.25  # of one core, once the engine serves
_AT_ONCE = 256  # records that the state takes in in one step
_CLOSE_S = 5.0  # for a search to notice that it is to end; a broker that is frozen may keep it longer
_QUOTE = '"'


class CatalogRecall:
    """For the engine's thread, but for the reading itself.

    Args:
        read: None: nothing is brought back.
        wake: makes the engine's thread look for work now; called from any thread.
    """

    def __init__(
        self,
        config: Config,
        read: ReadItems | None,
        wake: Callable[[], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._read = read
        self._wake = wake
        self._clock = clock
        self._next_s = clock()
        self._search: Future[dict[str, CatalogItem]] | None = None
        self._found: list[CatalogItem] = []  # not handed to the state yet
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def settled(self, state: State) -> bool:
        """Whether the catalog has what it should have, or can't have it for now."""
        return self._search is None and not self._found and not self._due(state)

    def step(self, state: State, caught_up: bool, serving: bool) -> Folded | None:
        """Begins a search that is due, ends one that is done, and takes in a part of what it has found.

        Args:
            caught_up: whether the events have been read as far as there were any: a search before would be repeated.
            serving: whether lists are made by now, and are to have most of the processor.

        Returns:
            What that part has changed.
        """
        if self._search is not None:
            if self._search.done():
                self._end(self._search, state)
        elif self._found:
            return self._take(state)
        elif caught_up and self._due(state):
            self._begin(state, _SHARE if serving else 1.0)
        return None

    def close(self) -> None:
        """Ends a search that runs."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)

    def _due(self, state: State) -> bool:
        return self._read is not None and state.records.wanted > 0 and self._clock() >= self._next_s

    def _begin(self, state: State, share: float) -> None:
        assert self._read is not None
        read, ends = self._read, state.catalog_positions
        search: Future[dict[str, CatalogItem]] = begun()
        names = frozenset(state.items.id_of(row) for row in state.records.seek())
        _log.info("catalog: %d items that events name may have lost their records to its limits; the items topic is"
                  " read for them", len(names))  # fmt: skip

        def find() -> dict[str, CatalogItem]:
            newest = Newest(self._config, names, ends)
            pace = Pace(share, self._stop)
            records: Any = read(ends)
            for part in records:
                newest.note(part)
                if pace.stopped():
                    break
            return newest.found()

        search.add_done_callback(lambda _: self._wake())
        self._search = search
        self._thread = in_background("catalog-recall", find, search)

    def _end(self, search: Future[dict[str, CatalogItem]], state: State) -> None:
        self._search = None
        self._next_s = self._clock() + self._config.state.catalog_recall_s
        error = search.exception()
        if error is None:
            self._found = [*search.result().values()]
            metrics.CATALOG_RECALLED.inc(len(self._found))
            _log.info("catalog: %d records brought back", len(self._found))
        else:
            _log.error(
                "catalog: the items topic can't be read for them (%s); next try in %g s",
                told(error) if isinstance(error, OSError | MemoryError) else error,
                self._config.state.catalog_recall_s,
            )
        if not self._found:
            state.records.end_search(found=error is None)
        self._wake()

    def _take(self, state: State) -> Folded:
        """Hands a part of what was found to the state: texts are encoded, and calls are not to wait for all of them."""
        part, self._found = self._found[:_AT_ONCE], self._found[_AT_ONCE:]
        changed = state.take_found(part)
        if not self._found:
            state.records.end_search(found=True)
        self._wake()
        return changed


class Newest:
    """The newest record of each of some items, among those that are noted in the order of the log.

    Args:
        names: ids of the items.
        ends: by (topic, partition), the offset from which on records count no more.
    """

    def __init__(self, config: Config, names: frozenset[str], ends: Mapping[Partition, int]) -> None:
        self._names = names
        self._ends = ends
        self._decoder = ItemDecoder(config.events, config.state.features_dim)
        self._found = RecordPool[str](config.state.catalog_bytes // 2)
        self._quoted: set[str] = set()  # ids that are the JSON text of one of `names`, and that have had a record

    def note(self, records: Iterable[Record]) -> None:
        """Takes in what of these concerns the items."""
        for record in records:
            if record.flaw is None and record.offset < self._ends.get((record.topic, record.partition), 0):
                try:
                    item, _ = self._decoder.decode(record)
                except PayloadError:  # It has become a dead letter when it was folded.
                    continue
                self.note_item(item)

    def note_item(self, item: CatalogItem) -> None:
        """The same for one record that is decoded."""
        if isinstance(item, QuotedTombstone):
            literal = item.item_id in self._quoted or item.item_id in self._found.records
            named = item.item_id if literal else item.named_id
            item = CatalogItem(named, deleted=True, offset=item.offset, partition=item.partition)
        elif item.item_id[:1] == _QUOTE and _json_string(item.item_id) in self._names:
            self._quoted.add(item.item_id)
        if item.item_id in self._names:
            self._found.pop(item.item_id)
            self._found.put(item.item_id, item, (item.offset, item.partition, 0))

    def found(self) -> dict[str, CatalogItem]:
        """By item id."""
        return self._found.records


def _json_string(text: str) -> str | None:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, str) else None
