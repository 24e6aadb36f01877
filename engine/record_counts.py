"""The outcome of every record that was polled: each is counted under one, and the counts add up."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

from engine import metrics
from engine.events.batch import Decoded, Record, Rejection
from engine.events.records import Records
from engine.events.source import Partition
from engine.limited_log import LimitedLog
from engine.log_fields import at
from engine.state.folded import Folded
from engine.state.state import State

_limited = LimitedLog(logging.getLogger(__name__))


class RecordCounts:
    """Counts the records of each step; a step calls `polled` before it folds and `folded` afterwards.

    The outcomes of `ousel_records`, of the events topic: `event` and `relation` (folded), `forget` (folded: it forgets
    a user or a session), `repeated` (an event id that came before), `redelivered` (an offset that came before) and
    `dead_letter`. Of the items topic: `item`, `deletion` (a tombstone or a deleted item), `redelivered` and
    `dead_letter`.

    Attributes:
        dead_lettered: records that broke a rule, each counted once.
    """

    def __init__(self, events_topic: str, items_topic: str) -> None:
        self._events_topic = events_topic
        self._items_topic = items_topic
        self._repeated = self._redelivered = 0  # as the state counted them before the batch
        self.dead_lettered = 0
        # They are shown from 0 on: of a counter that begins at 1 Prometheus does not see that it has risen.
        for topic in (events_topic, items_topic):
            metrics.RECORDS_POLLED.labels(topic)
            metrics.DEAD_LETTERS.labels(topic)

    def polled(self, records: Sequence[Record], batch: Decoded, state: State) -> None:
        """Counts what was polled and what broke a rule, and warns of the latter."""
        count = _by_topic(records)
        for rejection in batch.rejected:
            # One record may stand for a stretch of damaged ones.
            count[rejection.record.topic] += rejection.records - 1
        for topic, polled in count.items():
            metrics.RECORDS_POLLED.labels(topic).inc(polled)
        if batch.rejected:
            self._reject(batch.rejected, state.positions)
        self._repeated, self._redelivered = _skipped(state)

    def known(self, count: int) -> None:
        """Counts records of the items topic that a restored catalog reflects, and that are not folded again."""
        metrics.RECORDS_POLLED.labels(self._items_topic).inc(count)
        self._count(self._items_topic, {"redelivered": count})

    def folded(self, batch: Decoded, folded: Folded, state: State) -> None:
        """Counts what the fold made of the batch."""
        repeated, redelivered = _skipped(state)
        events = {
            "event": len(folded.event),
            "relation": len(folded.relation),
            "forget": len(folded.forgot),
            "repeated": repeated - self._repeated,
            "redelivered": redelivered - self._redelivered,
        }
        deletions = sum(item.deleted for item in batch.items)
        self._count(self._events_topic, events)
        self._count(self._items_topic, {"item": len(batch.items) - deletions, "deletion": deletions})
        metrics.EVENTS_FOLDED.inc(events["event"] + events["relation"])
        metrics.ITEMS_FOLDED.inc(len(batch.items))

    def _reject(self, rejections: Sequence[Rejection], positions: Mapping[Partition, int]) -> None:
        new: dict[str, list[Rejection]] = {}
        for rejection in rejections:
            record = rejection.record
            if record.offset < positions.get((record.topic, record.partition), 0):
                self._count(record.topic, {"redelivered": rejection.records})
            else:
                new.setdefault(record.topic, []).append(rejection)
        for topic, of_topic in new.items():
            count = sum(rejection.records for rejection in of_topic)
            self.dead_lettered += count
            self._count(topic, {"dead_letter": count})
            metrics.DEAD_LETTERS.labels(topic).inc(count)
            newest = of_topic[-1]
            _limited.warning(
                f"dead letter of {topic}", "record %s[%d]@%d is a dead letter (`ousel-engine dead-letters`): %s",
                topic, newest.record.partition, newest.record.offset, newest.reason, count=count,
                extra=at(topic, newest.record.partition, newest.record.offset),
            )  # fmt: skip

    def _count(self, topic: str, outcomes: Mapping[str, int]) -> None:
        for outcome, count in outcomes.items():
            if count:
                metrics.RECORDS.labels(topic, outcome).inc(count)


def _by_topic(records: Sequence[Record]) -> Counter[str]:
    count: Counter[str] = Counter()
    if isinstance(records, Records):
        for run in records.runs:
            count[run.topic] += run.count
    else:
        count.update(record.topic for record in records)
    return count


def _skipped(state: State) -> tuple[int, int]:
    """Events that the slices have skipped so far: repeats, and redelivered ones."""
    slices = [placed.slice for placed in state.slices.values()]
    return sum(one.duplicates for one in slices), sum(one.redelivered for one in slices)
