"""What happens in the shop of `freshness`: events at an even rate, and when each of a watched user was produced."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from kafka import KafkaProducer
from ousel.v1 import event_pb2

from engine.config import KafkaConfig
from engine.events.producer import producer_settings

K = 20
_TICK_S = 0.001


def user_id(user: int) -> str:
    return f"user-{user}"


def item_id(item: int) -> str:
    return f"item-{item}"


@dataclass(frozen=True)
class Click:
    """An event of a watched user in the log.

    Attributes:
        at_s: when `produce` was called, by `time.monotonic`, which is one clock for all processes.
    """

    at_s: float
    user: int
    partition: int
    offset: int


class Events:
    """Draws events: any user, of items half by Zipf's law and half any.

    Args:
        visitors: share of events by users who come once and never again.
    """

    def __init__(self, users: int, items: int, seed: int, visitors: float = 0.0) -> None:
        self._users, self._items, self._visitors = users, items, visitors
        self._draw = np.random.default_rng(seed)
        self._numbered = 0
        self._seed = seed

    def next(self) -> tuple[int, event_pb2.Event]:
        draw = self._draw
        user = int(draw.integers(self._users))
        if self._visitors and draw.random() < self._visitors:
            user = self._users * (self._seed + 1) + self._numbered
        item = int(draw.zipf(1.2) if draw.random() < 0.5 else draw.integers(self._items)) % self._items
        event = event_pb2.Event(
            event_id=f"{self._seed}-{self._numbered}", user_id=user_id(user), item_id=item_id(item), kind="view"
        )
        event.time.FromMilliseconds(time.time_ns() // 1_000_000)
        self._numbered += 1
        return user, event


class Producer:
    """Produces events at an even rate in a thread of its own, in a `with`.

    Args:
        watched: users below this number are.

    Attributes:
        clicks: of watched users, once acknowledged.
        produced, late: events, and those of them that were produced over 10 ms after they were due.
    """

    def __init__(self, kafka: KafkaConfig, events: Events, per_s: float, watched: int) -> None:
        self.clicks: list[Click] = []
        self.produced = self.late = 0
        self._kafka, self._events, self._per_s, self._watched = kafka, events, per_s, watched
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="producer", daemon=True)

    def __enter__(self) -> Producer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        producer = KafkaProducer(**producer_settings(self._kafka))
        producer.partitions_for(self._kafka.events_topic)
        begun_s = time.monotonic()
        while not self._stop.wait(_TICK_S):
            now_s = time.monotonic()
            while (due_s := begun_s + self.produced / self._per_s) <= now_s:
                self._send(producer)
                self.late += now_s - due_s > 0.01
        producer.flush()
        producer.close()

    def _send(self, producer: KafkaProducer) -> None:
        user, event = self._events.next()
        self.produced += 1
        at_s = time.monotonic()
        sent = producer.send(self._kafka.events_topic, key=event.user_id.encode(), value=event.SerializeToString())
        if user < self._watched:

            def acknowledged(metadata: Any) -> None:
                self.clicks.append(Click(at_s, user, metadata.partition, metadata.offset))

            sent.add_callback(acknowledged)
