"""The usual event, parsed for a whole batch at once: protobuf's wire format, field by field, in numpy.

A protobuf library costs microseconds per record, most of them Python's. Producers write nearly all events in one plain
form, so that form is read here: fields in the order of their numbers, each at most once, ids in printable ASCII of less
than 128 characters, nothing that breaks a rule. Every other record is left to the library, which alone says what a
payload means. What is accepted here, it reads the same way.

Shapes: N records in a batch, A of them accepted here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.config import EventsConfig
from engine.events.batch import EventBatch
from engine.events.placeholders import PlaceholderFilter
from engine.events.records import Records
from engine.events.times import MAX_TIME_MS, earliest_ms

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_PADDING = 16  # bytes behind the last record: a read goes at most this far before it is found out
_VARINT_BYTES = 5
_LONG = 0x80  # a byte from here on is not the last of its number
_NANOS = 1_000_000_000


class Parsed(NamedTuple):
    """The events that could be read at once.

    Attributes:
        events: A events, in the order of their records.
        accepted: [A] their positions in the batch.
        rest: [N - A] all other positions, ascending.
    """

    events: EventBatch
    accepted: Ints
    rest: Ints


class EventParser:
    """Reads the payloads of one events topic."""

    def __init__(self, topic: str, config: EventsConfig) -> None:
        self._topic = topic
        self._max_id_bytes = config.max_id_bytes
        self._max_future_ms = config.max_future_s * 1000
        self._earliest_ms = earliest_ms(config.earliest_year)
        self._kinds = _Kinds(config)
        self._placeholders = PlaceholderFilter(config)

    def parse(self, records: Records) -> Parsed:
        """Parses what has the usual form and breaks no rule."""
        payload = np.frombuffer(records.value.data + bytes(self._kinds.width + _PADDING), np.uint8)
        end = records.value.end
        begin = end - np.maximum(records.value.size, 0)
        # Step 1. Find every field's place.
        fields = _Fields(payload, begin, end)
        ids = [fields.delimited(number) for number in (1, 2, 3, 4)]
        kind = self._kinds.positions(payload, fields.delimited(5))
        time = fields.delimited(6)
        value = fields.float(7)
        seconds_nanos = _Fields(payload, time.start, time.end)
        seconds, nanos = seconds_nanos.varint(1), seconds_nanos.varint(2)
        time_ms = np.where(time.present, seconds * 1000 + nanos // 1_000_000, records.timestamp_ms)
        # Step 2. Keep what is whole and breaks no rule.
        good = records.of_topic(self._topic) & fields.whole() & seconds_nanos.whole() & (nanos < _NANOS) & (kind >= 0)
        good &= (value >= 0) & (value < np.inf) & self._time_holds(time_ms, records.timestamp_ms)
        good &= self._ids_hold(ids)
        for field in ids[:3]:  # Items are no persons.
            good &= ~self._placeholders.suspects(payload, field.start, field.end)
        good &= _printable(payload, begin, ids, good)
        good[list(records.flaws)] = False  # A flaw stands for records that can't be read.
        # Step 3. Cut the ids out.
        accepted = np.flatnonzero(good)
        event_id, user_id, session_id, item_id = _cut(payload, ids, end, accepted)
        events = EventBatch(
            event_id=event_id,
            user_id=user_id,
            session_id=session_id,
            item_id=item_id,
            target_id=[""] * len(accepted),
            kind=kind[accepted],
            time_ms=time_ms[accepted],
            value=np.where(value == 0, np.float32(1), value)[accepted],
            partition=records.partition[accepted],
            offset=records.offset[accepted],
            timestamp_ms=records.timestamp_ms[accepted],
            forget=np.zeros(len(accepted), np.bool_),
            ends=np.zeros(len(accepted), np.bool_),
        )
        return Parsed(events, accepted, np.flatnonzero(~good))

    def _time_holds(self, time_ms: Ints, now_ms: Ints) -> Bools:
        latest_ms = np.minimum(now_ms + self._max_future_ms, MAX_TIME_MS)
        return (time_ms >= self._earliest_ms) & (time_ms <= np.where(now_ms < 0, MAX_TIME_MS, latest_ms))

    def _ids_hold(self, ids: list[_Delimited]) -> Bools:
        _, user, session, item = (field.size for field in ids)
        longest = np.maximum.reduce([field.size for field in ids])
        return (item > 0) & ((user > 0) | (session > 0)) & (longest <= self._max_id_bytes)


class _Kinds:
    """The known kinds, found by their bytes.

    Attributes:
        width: bytes of the longest.
    """

    def __init__(self, config: EventsConfig) -> None:
        names = {kind.encode(): position for position, kind in enumerate(config.kinds)}
        names[b""] = names[config.default_kind.encode()]
        self._names = np.array(sorted(names))
        self._size = np.array([len(name) for name in sorted(names)])
        self._position = np.array([names[name] for name in sorted(names)], np.int8)
        self.width = self._names.itemsize

    def positions(self, payload: Bytes, field: _Delimited) -> NDArray[np.int8]:
        """[N] each kind's position in the configuration, -1 where it is unknown."""
        span = np.arange(self.width)
        chars = payload[field.start[:, None] + span] * (span < field.size[:, None])
        found = np.searchsorted(self._names, chars.view(self._names.dtype)[:, 0])
        found = np.minimum(found, len(self._names) - 1)
        # To numpy, zero bytes at the end are no part of a string: the length has to agree as well.
        same = (self._names[found] == chars.view(self._names.dtype)[:, 0]) & (self._size[found] == field.size)
        return np.where(same, self._position[found], np.int8(-1))


def _printable(payload: Bytes, begin: Ints, ids: list[_Delimited], where: Bools) -> Bools:
    """[N] whether the ids of a record are printable ASCII, of the records asked for."""
    # Printable is 0x20..0x7e; unsigned, all that lies below wraps to above.
    chars = payload - np.uint8(0x20)
    for field in ids:
        start = field.start[field.present & where]
        chars[start - 1] = chars[start - 2] = 0  # the tag and the length before the text
    highest: Bytes = np.maximum.reduceat(chars, np.stack([begin, ids[-1].end], axis=1).ravel())[::2]
    return highest <= 0x7E - 0x20


@dataclass(frozen=True, eq=False)
class _Delimited:
    """A field of varying length in every record; empty where it is not present.

    Attributes:
        start: [N] where its content starts in the payload.
        end: [N] and ends.
        present: [N]
    """

    start: Ints
    end: Ints
    present: Bools

    @property
    def size(self) -> Ints:
        return self.end - self.start


def _cut(payload: Bytes, ids: list[_Delimited], end: Ints, at: Ints) -> list[list[str]]:
    """The ids as text, of the records at these positions, which end there; they are printable ASCII."""
    chars = payload & 0x7F
    present = [field for field in ids if field.present[at].any()]
    if all(field.present[at].all() for field in present) and (ids[-1].end[at] < end[at]).all():
        # All alike: with line feeds around each id and nowhere else, one split costs half of what all the slices do.
        chars[chars == ord("\n")] = 0
        for field in present:
            start = field.start[at]
            chars[start - 1] = chars[start - 2] = ord("\n")  # the tag and the length before the text
        chars[ids[-1].end[at]] = ord("\n")
        texts = iter(range(2, 2 * len(present) + 1, 2))
        lines = str(chars.tobytes(), "ascii").split("\n")
        return [lines[next(texts) :: 2 * len(present) + 1] if field in present else [""] * len(at) for field in ids]
    text = str(chars.tobytes(), "ascii")
    bounds = [zip(field.start[at].tolist(), field.end[at].tolist(), strict=True) for field in ids]
    return [[text[start:end] for start, end in column] for column in bounds]


class _Fields:
    """Cursors over the fields of N messages; they may stand anywhere once a message turned out not to be whole."""

    def __init__(self, payload: Bytes, start: Ints, end: Ints) -> None:
        self._payload = payload
        self._at = start
        self._end = end
        self._good = np.ones(len(end), np.bool_)

    def delimited(self, number: int) -> _Delimited:
        """The next field of wire type 2, where it has this number."""
        present = self._present(number << 3 | 2)
        size = self._payload[self._at + 1] * present
        self._good &= size < _LONG
        start = self._at + 2 * present
        self._advance(start + size)
        return _Delimited(np.minimum(start, self._end), self._at, present)

    def float(self, number: int) -> NDArray[np.float32]:
        """The next field of wire type 5, where it has this number: its value, 0 where it is not present."""
        present = self._present(number << 3 | 5)
        value: NDArray[np.float32] = self._payload[self._at[:, None] + np.arange(1, 5)].view("<f4")[:, 0]
        self._advance(self._at + 5 * present)
        return np.where(present, value, np.float32(0))

    def varint(self, number: int) -> Ints:
        """The next field of wire type 0, where it has this number: 0..2**35-1, 0 where it is not present."""
        more = self._present(number << 3)
        at = self._at + more
        value = np.zeros(len(at), np.int64)
        for shift in range(0, 7 * _VARINT_BYTES, 7):
            byte = self._payload[at] * more
            value |= (byte & np.int64(0x7F)) << shift
            at = at + more
            more = byte >= _LONG
        self._good &= ~more
        self._advance(at)
        return value

    def whole(self) -> Bools:
        """[N] whether the message ends just where the last field read does."""
        return self._good & (self._at == self._end)

    def _present(self, tag: int) -> Bools:
        return (self._at < self._end) & (self._payload[self._at] == tag)

    def _advance(self, at: NDArray[Any]) -> None:
        self._good &= at <= self._end
        self._at = np.minimum(at, self._end)
