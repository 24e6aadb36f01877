"""What `benchmarks.recovery` writes to the log without a break: a shop's events, with all that may go wrong."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError
from ousel.v1 import catalog_pb2, event_pb2

from engine.config import KafkaConfig
from engine.events.producer import producer_settings

NUMBER = "number"  # header of a record that holds a whole event: which of all events it is
_TICK_S = 0.01
_MAX_PENDING = 2000
_REQUEST_TIMEOUT_MS = 2000
_USERS, _ITEMS, _RECENT = 1500, 400, 300
_KINDS = ("view", "view", "view", "click", "cart", "purchase")


@dataclass(frozen=True)
class _Record:
    topic: str
    key: bytes
    value: bytes
    number: int | None = None
    partition: int | None = None


@dataclass(frozen=True)
class Acknowledged:
    """An event that the broker has said to hold, and where."""

    partition: int
    offset: int
    number: int


class Writer:
    """Writes in a thread and notes what the broker acknowledges; what it does not is written again, the same event.

    Of 1000 records about 40 repeat a recent event under its event_id, 30 are broken, 20 change the catalog, and one
    forgets a user in all partitions; a fifth of the others belong to anonymous sessions.

    Args:
        events_per_s: about so many; fewer while the broker is away.
    """

    def __init__(self, config: KafkaConfig, seed: int, events_per_s: int) -> None:
        # Shorter than a restart of the broker, so that it happens that records fail.
        config = config.model_copy(update={"request_timeout_ms": _REQUEST_TIMEOUT_MS})
        self._config = config
        self._chance = Random(seed)
        self._per_tick = max(1, round(events_per_s * _TICK_S))
        self._producer = KafkaProducer(**producer_settings(config))
        self._partitions = sorted(self._producer.partitions_for(config.events_topic))
        self._recent: deque[_Record] = deque(maxlen=_RECENT)
        self._numbered = 0
        self._stopping, self._leaving, self._catalog_rests = (threading.Event() for _ in range(3))
        self._lock = threading.Lock()  # guards what follows
        self._pending = 0
        self._again: deque[_Record] = deque()
        self._acknowledged: list[Acknowledged] = []
        self._ends: dict[tuple[str, int], int] = {}
        self.rewritten = 0
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def take(self) -> list[Acknowledged]:
        """The events acknowledged since the last call."""
        with self._lock:
            taken, self._acknowledged = self._acknowledged, []
            return taken

    def ends(self) -> dict[tuple[str, int], int]:
        """One past the last acknowledged record of each (topic, partition)."""
        with self._lock:
            return dict(self._ends)

    @contextmanager
    def catalog_at_rest(self) -> Iterator[None]:
        """Meanwhile no further changes of the catalog are written; events are."""
        self._catalog_rests.set()
        try:
            yield
        finally:
            self._catalog_rests.clear()

    def finish(self, timeout_s: float) -> None:
        """Writes nothing new, and waits until all is acknowledged.

        Raises:
            TimeoutError: it is not in time.
        """
        self._stopping.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise TimeoutError(f"the broker has not acknowledged {self._pending} records within {timeout_s:g} s")

    def close(self) -> None:
        """Ends at once, with whatever is on its way."""
        self._leaving.set()
        self._thread.join(2 * _REQUEST_TIMEOUT_MS / 1000)
        self._producer.close(timeout=0.5)

    def _run(self) -> None:
        while not self._leaving.wait(_TICK_S):
            with self._lock:
                again, self._again = self._again, deque()
                self.rewritten += len(again)
                left, room = self._pending + len(again), self._pending < _MAX_PENDING
            for record in again:
                self._send(record)
            if self._stopping.is_set():
                if not left:
                    return
            elif room:
                for _ in range(self._per_tick):
                    for record in self._next():
                        self._send(record)

    def _send(self, record: _Record) -> None:
        def succeed(metadata: Any) -> None:
            with self._lock:
                self._pending -= 1
                where = metadata.topic, metadata.partition
                self._ends[where] = max(self._ends.get(where, 0), metadata.offset + 1)
                if record.number is not None:
                    self._acknowledged.append(Acknowledged(metadata.partition, metadata.offset, record.number))

        def fail(_: object) -> None:
            with self._lock:
                self._pending -= 1
                self._again.append(record)

        with self._lock:
            self._pending += 1
        headers = [] if record.number is None else [(NUMBER, str(record.number).encode())]
        try:
            sent = self._producer.send(
                record.topic, key=record.key, value=record.value, headers=headers, partition=record.partition
            )
        except KafkaError as error:
            fail(error)
        else:
            sent.add_callback(succeed)
            sent.add_errback(fail)

    def _next(self) -> list[_Record]:
        """The next record, or one for each partition."""
        chance = self._chance
        what = chance.random()
        if what < 0.04 and self._recent:
            return [chance.choice(self._recent)]
        event = self._event()
        key = (event.user_id or event.session_id).encode()
        if what < 0.041:
            event.forget, event.item_id, event.event_id = True, "", f"f{event.event_id}"
            value = event.SerializeToString()
            return [_Record(self._config.events_topic, key, value, partition=at) for at in self._partitions]
        if what < 0.07:
            return [_Record(self._config.events_topic, key, self._broken(event))]
        if what < 0.09 and not self._catalog_rests.is_set():
            return [self._item()]
        record = _Record(self._config.events_topic, key, event.SerializeToString(), self._numbered)
        self._numbered += 1
        self._recent.append(record)
        return [record]

    def _event(self) -> event_pb2.Event:
        return draw_event(self._chance, self._numbered)

    def _broken(self, event: event_pb2.Event) -> bytes:
        event.event_id = f"b{event.event_id}"
        match self._chance.randrange(4):
            case 0:
                return b"\xff no event"
            case 1:
                event.item_id = ""
            case 2:
                event.kind = "nonsense"
            case _:
                event.value = float("nan")
        return event.SerializeToString()

    def _item(self) -> _Record:
        chance = self._chance
        item_id = f"item-{chance.randrange(_ITEMS)}"
        what = chance.random()
        item = catalog_pb2.Item(item_id=item_id, title=f"Title {chance.randrange(10**6)}", deleted=what < 0.1)
        item.categories.extend(f"category-{chance.randrange(20)}" for _ in range(chance.randrange(3)))
        value = b"\xff no item" if what > 0.95 else item.SerializeToString()
        return _Record(self._config.items_topic, item_id.encode(), value)


def draw_event(chance: Random, number: int) -> event_pb2.Event:
    """A shop's event; of users and items, some come often."""
    user = int(_USERS * chance.random() ** 2)
    event = event_pb2.Event(
        event_id=f"e{number}",
        item_id=f"item-{int(_ITEMS * chance.random() ** 3)}",
        kind=chance.choice(_KINDS),
        value=chance.randrange(4),
    )
    if chance.random() < 0.8:
        event.user_id = f"user-{user}"
    if not event.user_id or chance.random() < 0.5:
        event.session_id = f"session-{user}-{chance.randrange(3)}"
    # Producers that number from elsewhere live in the same hours.
    event.time.FromMilliseconds(1_700_000_000_000 + 500 * (number % 10**9) + chance.randrange(5000))
    return event
