"""Fields that nothing in Ousel reads: they refuse no record, but nobody should believe that they count."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from engine import metrics
from engine.events.batch import Record
from engine.events.payload import names_shown
from engine.limited_log import LimitedLog
from engine.log_fields import at

_log = LimitedLog(logging.getLogger(__name__))
_MAX_NAMES = 100  # gathered per topic and batch, so that a producer of random names costs no memory


class UnreadFields:
    """Counts the records of each topic that bear such fields, and says so at most once per topic and interval.

    The counter is one beside those of folded records and dead letters: a record counts there, too.
    """

    def __init__(self, log: LimitedLog | None = None) -> None:
        self._log = log or _log
        self._found: dict[str, _Found] = {}

    def note(self, record: Record, names: Sequence[str]) -> None:
        """One record has fields of these names."""
        found = self._found.get(record.topic)
        if found is None:
            self._found[record.topic] = found = _Found(record)
        found.records += 1
        if len(found.names) < _MAX_NAMES:
            found.names.update(dict.fromkeys(names))

    def report(self) -> None:
        """Counts and logs everything noted since the last call."""
        if not self._found:
            return
        for topic, found in self._found.items():
            metrics.UNKNOWN_FIELDS.labels(topic).inc(found.records)
            self._log.warning(
                topic,
                "records of %s bear fields that nothing reads, and that are ignored: %s; such a record is at partition"
                " %d, offset %d; docs/events.md names the fields that count",
                topic,
                names_shown([*found.names]),
                found.first.partition,
                found.first.offset,
                count=found.records,
                extra=at(topic, found.first.partition, found.first.offset),
            )
        self._found.clear()


class _Found:
    """The unread fields of one topic's records in this batch."""

    def __init__(self, first: Record) -> None:
        self.first = first
        self.records = 0
        self.names: dict[str, None] = {}  # in the order in which they came
