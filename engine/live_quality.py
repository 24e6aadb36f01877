"""How good the lists are that were sent, by model version: whether the next event's item stood in the list, and where.

A list is judged once, by the first event of its user after it was made. Lists and events of one user follow each other
quickly where streams are open, so a list that was made after an event's record is not judged by that event: it knows
what it would be asked. Figures of an evaluation are about the same question, so both can be compared.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from engine import metrics
from engine.config import QualityConfig
from engine.events.batch import EventBatch
from engine.ranking.query import Origin, Ranking

VERSIONS = 5  # of which figures are shown, those of lists that no model ordered included
DEPTH = 100  # items of a list that are looked at, from its head
_PLACES = 2**20  # for items by hash, a byte each, to count how many different ones were listed
_COVERAGE_S = 3600.0  # from one count of different items to the next

_BY_VERSION = (metrics.LIVE_JUDGED, metrics.LIVE_HITS, metrics.LIVE_RECIPROCAL_RANKS, metrics.LIVE_COVERAGE)


class _Coverage:
    """Counts different items in bounded memory: by how many places of a table their hashes leave free."""

    def __init__(self, now_s: float) -> None:
        self._last: float | None = None  # items in the last full period
        self._begin(now_s)

    def _begin(self, now_s: float) -> None:
        self._began_s, self._taken, self._places = now_s, 0, bytearray(_PLACES)

    def add(self, item_ids: Sequence[str], now_s: float) -> None:
        if now_s - self._began_s >= _COVERAGE_S:
            self._last = self._estimate()
            self._begin(now_s)
        places = self._places
        for item_id in item_ids:
            place = hash(item_id) & (_PLACES - 1)
            if not places[place]:
                places[place] = 1
                self._taken += 1

    def items(self) -> float:
        """Different items in the last full period; before the first has passed, those until now."""
        return self._estimate() if self._last is None else self._last

    def _estimate(self) -> float:
        free = max(1, _PLACES - self._taken)
        return -_PLACES * math.log(free / _PLACES)


class _Figures:
    """The counters of one version, found once."""

    def __init__(self, version: int, now_s: float, available: Callable[[], int]) -> None:
        self.kept = True
        self.coverage = _Coverage(now_s)
        self.judged, self.hits, self.reciprocal_ranks = (metric.labels(version) for metric in _BY_VERSION[:3])
        metrics.LIVE_COVERAGE.labels(version).set_function(
            lambda: min(1.0, self.coverage.items() / max(1, available()))
        )


class _Sent(NamedTuple):
    made_ms: float
    figures: _Figures
    item_ids: tuple[str, ...]


class LiveQuality:
    """Judges lists by the events that follow them. Only the engine's thread calls it.

    Args:
        clock: seconds since 1970; replaced by tests.

    Attributes:
        available: items that may be listed now, of which coverage is a share.
    """

    def __init__(self, config: QualityConfig, clock: Callable[[], float] = time.time) -> None:
        self._config = config
        self._clock = clock
        self._sent: OrderedDict[str, _Sent] = OrderedDict()  # by subject, the list that was sent longest ago first
        self._versions: OrderedDict[int, _Figures] = OrderedDict()  # the one used longest ago first
        self.available = 0
        metrics.LIVE_LISTS.set_function(lambda: len(self._sent))

    def send(self, subject: str, ranking: Ranking) -> None:
        """Notes the newest list of a user or session; the one before was never judged and goes."""
        if not self._config.lists:
            return
        now_s = self._clock()
        figures = self._figures(ranking.model_version if ranking.origin == Origin.MODEL else 0, now_s)
        item_ids = tuple([item.item_id for item in ranking.items[:DEPTH]])
        figures.coverage.add(item_ids, now_s)
        self._sent[subject] = _Sent(now_s * 1000, figures, item_ids)
        self._sent.move_to_end(subject)
        if len(self._sent) > self._config.lists:
            self._sent.popitem(last=False)

    def judge(self, events: EventBatch, subjects: Sequence[str]) -> None:
        """Judges the lists of those who have events; `subjects` are theirs, in the order of the events."""
        if not self._sent:
            return
        for at, subject in enumerate(subjects):
            sent = self._sent.get(subject)
            if sent is None:
                continue
            if events.forget[at]:
                del self._sent[subject]
            elif events.item_id[at] and not events.target_id[at]:
                self._judge(subject, sent, events.item_id[at], int(events.timestamp_ms[at]))

    def _judge(self, subject: str, sent: _Sent, item_id: str, record_ms: int) -> None:
        if record_ms < sent.made_ms:
            return
        del self._sent[subject]
        figures = sent.figures
        if record_ms > sent.made_ms + 1000 * self._config.window_s or not figures.kept:
            return
        figures.judged.inc()
        if item_id in sent.item_ids:
            figures.hits.inc()
            figures.reciprocal_ranks.inc(1 / (1 + sent.item_ids.index(item_id)))

    def _figures(self, version: int, now_s: float) -> _Figures:
        figures = self._versions.get(version)
        if figures is None:
            figures = self._versions[version] = _Figures(version, now_s, lambda: self.available)
            if len(self._versions) > VERSIONS:
                gone, dropped = self._versions.popitem(last=False)
                dropped.kept = False
                for metric in _BY_VERSION:
                    metric.remove(gone)
        self._versions.move_to_end(version)
        return figures
