"""Other people's producers beside the writer of `benchmarks.recovery`: all codecs, and transactions of both kinds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from random import Random

from benchmarks.recovery_writer import Acknowledged, draw_event
from deploy.local.stock_producers import ConfluentProducer, JavaProducer, KafkaPythonProducer, StockProducer, ToSend
from engine.config import KafkaConfig

_CODECS = ("gzip", "snappy", "lz4", "zstd")
_BATCH = 12
_PAUSE_S = 0.25
_JOIN_S = 120.0
_NUMBERS = 10**9  # Every producer numbers its events from a multiple of this, so that no number comes twice.
Make = Callable[[str, str | None], StockProducer]


class StockWriters:
    """Threads that each write events by one library until they are told to stop.

    A thread has a producer for each codec and uses them in turns. A thread with transactions commits about half of them
    and aborts the others; an aborted event has a number, too, and must be counted nowhere.

    Args:
        kafka_home: the folder whose `libs/` holds the jars of the Apache Kafka that is written to. None: the broker is
            the embedded one, and transactions are left out with Kafka's own producer: that broker goes on listing an
            aborted transaction where nothing of it is left, so that readers drop what its producer commits later.
    """

    def __init__(self, config: KafkaConfig, seed: int, kafka_home: Path | None) -> None:
        self._config = config
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # guards what follows
        self._acknowledged: list[Acknowledged] = []
        self.failures: list[str] = []
        self.committed = self.aborted = 0
        bootstrap = config.bootstrap
        makes: dict[str, tuple[Make, tuple[str, ...]]] = {
            "confluent": (lambda codec, id_: ConfluentProducer(bootstrap, codec, id_), _CODECS),
            "kafka-python": (lambda codec, id_: KafkaPythonProducer(bootstrap, codec, id_), _CODECS),
        }
        if kafka_home is not None:
            # Each producer is a process of Java, so there are two in place of eight.
            makes["java"] = (lambda codec, id_: JavaProducer(bootstrap, codec, id_, home=kafka_home), ("zstd",))
        self._threads: list[threading.Thread] = []
        for name, (make, codecs) in makes.items():
            for transactional in (False, True) if kafka_home is not None else (False,):
                number = len(self._threads)
                arguments = (make, codecs, transactional, number, Random(seed + number))
                title = f"{name} in transactions" if transactional else name
                self._threads.append(threading.Thread(target=self._run, name=title, args=arguments, daemon=True))
        for thread in self._threads:
            thread.start()

    def take(self) -> list[Acknowledged]:
        """The events acknowledged since the last call, of transactions those that were committed."""
        with self._lock:
            taken, self._acknowledged = self._acknowledged, []
            return taken

    def close(self) -> None:
        """Writes nothing new, and waits until the last transactions have ended. Safe to call twice."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(_JOIN_S)

    def _run(self, make: Make, codecs: tuple[str, ...], transactional: bool, number: int, chance: Random) -> None:
        first = (number + 1) * _NUMBERS
        try:
            with ExitStack() as opened:
                name = f"{threading.current_thread().name}-{self._config.events_topic}"
                producers = [
                    opened.enter_context(closing(make(codec, f"{name}-{codec}" if transactional else None)))
                    for codec in codecs
                ]
                turn = 0
                while not self._stopping.wait(_PAUSE_S * chance.uniform(0.2, 1.8)):
                    self._write(producers[turn % len(producers)], chance, first + turn * _BATCH, transactional)
                    turn += 1
        except Exception as error:
            with self._lock:
                self.failures.append(f"{threading.current_thread().name}: {error!r}")

    def _write(self, producer: StockProducer, chance: Random, first: int, transactional: bool) -> None:
        records = []
        for number in range(first, first + _BATCH):
            event = draw_event(chance, number)
            key = (event.user_id or event.session_id).encode()
            records.append(ToSend(self._config.events_topic, key, event.SerializeToString(), str(number).encode()))
        commit = not transactional or chance.random() < 0.5
        where = producer.transact(records, commit=commit) if transactional else producer.write(records)
        with self._lock:
            if commit:
                self.committed += _BATCH
                self._acknowledged += [Acknowledged(*at, first + place) for place, at in enumerate(where)]
            else:
                self.aborted += _BATCH
