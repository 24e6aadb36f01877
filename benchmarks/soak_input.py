"""The records that producers write in `soak --hostile`: good events in all codecs, and records that no rule allows."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import cycle

import numpy as np
from kafka import KafkaProducer
from ousel.v1 import catalog_pb2, event_pb2

from benchmarks.shop_log import item_id, user_id
from engine.config import KafkaConfig
from engine.events.producer import producer_settings

_CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
_HUGE_BYTES = 900_000
_HUGE_EACH_S = 5.0

Record = tuple[str, bytes | None, bytes | None]  # topic, key, value


class BadInput:
    """Writes records of each kind in turn, at an even rate, in a thread of its own, in a `with`."""

    def __init__(self, kafka: KafkaConfig, users: int, items: int, per_s: float) -> None:
        self.written = 0
        self.failures: list[str] = []
        self._kafka, self._users, self._items, self._per_s = kafka, users, items, per_s
        self._draw = np.random.default_rng(13)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bad-input", daemon=True)

    def __enter__(self) -> BadInput:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with ExitStack() as stack:
            producers = []
            for codec in _CODECS:
                settings = producer_settings(self._kafka) | {"compression_type": None if codec == "none" else codec}
                producers.append(stack.enter_context(closing(KafkaProducer(**settings))))
            began_s, huge_s = time.monotonic(), time.monotonic()
            for producer, record in zip(cycle(producers), self._records(), strict=False):
                if self._stop.wait(max(0.0, began_s + self.written / self._per_s - time.monotonic())):
                    break
                self._write(producer, record)
                if time.monotonic() > huge_s + _HUGE_EACH_S:
                    huge_s = time.monotonic()
                    self._write(producer, (self._kafka.events_topic, b"huge", self._json(user_id="x" * _HUGE_BYTES)))
            for producer in producers:
                producer.flush()

    def _write(self, producer: KafkaProducer, record: Record) -> None:
        topic, key, value = record
        producer.send(topic, key=key, value=value).add_errback(lambda error: self.failures.append(f"record: {error}"))
        self.written += 1

    def _records(self) -> Iterator[Record]:
        kinds: tuple[Callable[[], Record], ...] = (
            self._good, self._undecodable, self._in_seconds, self._unknown_fields, self._late, self._early,
            self._nobody, self._tombstone, self._invented, self._bad_item,
        )  # fmt: skip
        for kind in cycle(kinds):
            yield kind()

    def _event(self, at_ms: int, **fields: str) -> Record:
        user, item = user_id(int(self._draw.integers(self._users))), item_id(int(self._draw.integers(self._items)))
        event = event_pb2.Event(**{"user_id": user, "item_id": item, "kind": "view"} | fields)  # type: ignore[arg-type]
        event.time.FromMilliseconds(at_ms)
        return self._kafka.events_topic, event.user_id.encode(), event.SerializeToString()

    def _json(self, **fields: object) -> bytes:
        return json.dumps({"user_id": "user-1", "item_id": "item-1", "time": _now_ms()} | fields).encode()

    def _good(self) -> Record:
        return self._event(_now_ms())

    def _late(self) -> Record:
        return self._event(_now_ms() - 30 * 86_400_000)

    def _early(self) -> Record:
        return self._event(_now_ms() + 70 * 365 * 86_400_000)

    def _nobody(self) -> Record:
        return self._event(_now_ms(), session_id="null")

    def _undecodable(self) -> Record:
        return self._kafka.events_topic, b"k", self._draw.bytes(40)

    def _in_seconds(self) -> Record:
        return self._kafka.events_topic, b"user-1", self._json(time=_now_ms() // 1000)

    def _unknown_fields(self) -> Record:
        return self._kafka.events_topic, b"user-1", self._json(visitorid=7, price={"amount": 3})

    def _tombstone(self) -> Record:
        return self._kafka.items_topic, item_id(self._items + int(self._draw.integers(50))).encode(), None

    def _invented(self) -> Record:
        name = f"invented-{self.written}"
        return self._kafka.items_topic, name.encode(), catalog_pb2.Item(item_id=name, title=name).SerializeToString()

    def _bad_item(self) -> Record:
        return self._kafka.items_topic, b"item-1", b"\xff\xfe"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
