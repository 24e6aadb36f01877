"""Events of the shop at an even rate, and when each of a watched user was produced."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from kafka import KafkaProducer

from benchmarks.shop_log import Events
from engine.config import KafkaConfig
from engine.events.producer import producer_settings

K = 20
_TICK_S = 0.001


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
