"""The producers that other people use, behind one interface: confluent-kafka, Kafka's own in Java, and kafka-python.

They write what shops write: batches in any codec, and transactions that are committed or aborted. The broker must be
reached without TLS and without a password.
"""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

NUMBER = "number"  # the header that bears a record's number
_TIMEOUT_S = 60.0
_SOURCE = Path(__file__).with_name("StockProducer.java")


class ToSend(NamedTuple):
    """A record to write; with a `number`, that is its header."""

    topic: str
    key: bytes | None
    value: bytes | None
    number: bytes | None = None


Where = tuple[int, int]  # partition, offset


class StockProducer(Protocol):
    """A producer with a codec; with a transactional id, for `transact` alone."""

    def write(self, records: Sequence[ToSend]) -> list[Where]:
        """Writes records, in few batches, and waits until all are acknowledged; returns where they lie."""

    def transact(self, records: Sequence[ToSend], *, commit: bool) -> list[Where]:
        """Writes records in a transaction of their own, which is then committed or aborted."""

    def close(self) -> None:
        """Ends it."""


class ConfluentProducer:
    """librdkafka's producer, which most languages wrap."""

    def __init__(self, bootstrap: str, codec: str, transactional_id: str | None = None, **settings: Any) -> None:
        from confluent_kafka import Producer

        common = {"bootstrap.servers": bootstrap, "compression.type": codec, "linger.ms": 20}
        # By default it sends a user's events elsewhere than Kafka's own producer does.
        common |= {"partitioner": "murmur2_random", "queue.buffering.max.kbytes": 1 << 20, "log_level": 0}
        if transactional_id is not None:
            common["transactional.id"] = transactional_id
        self._producer = Producer(common | settings)
        if transactional_id is not None:
            self._producer.init_transactions(_TIMEOUT_S)

    def write(self, records: Sequence[ToSend]) -> list[Where]:
        found: list[Where | None] = [None] * len(records)

        def note(index: int) -> Callable[[Any, Any], None]:
            def delivered(error: Any, message: Any) -> None:
                if error is None:
                    found[index] = message.partition(), message.offset()

            return delivered

        for index, one in enumerate(records):
            headers: dict[str, str | bytes | None] = {} if one.number is None else {NUMBER: one.number}
            self._producer.produce(one.topic, one.value, one.key, on_delivery=note(index), headers=headers)
        self._producer.flush(_TIMEOUT_S)
        where = [one for one in found if one is not None]
        if len(where) != len(records):
            raise ConnectionError(f"{len(records) - len(where)} of {len(records)} records are not acknowledged")
        return where

    def transact(self, records: Sequence[ToSend], *, commit: bool) -> list[Where]:
        self._producer.begin_transaction()
        where = self.write(records)
        (self._producer.commit_transaction if commit else self._producer.abort_transaction)(_TIMEOUT_S)
        return where

    def close(self) -> None:
        self._producer.flush(_TIMEOUT_S)


class KafkaPythonProducer:
    """kafka-python's producer."""

    def __init__(self, bootstrap: str, codec: str, transactional_id: str | None = None) -> None:
        from kafka import KafkaProducer

        extra = {} if transactional_id is None else {"transactional_id": transactional_id}
        compression = None if codec == "none" else codec
        self._producer = KafkaProducer(
            bootstrap_servers=bootstrap, acks="all", compression_type=compression, linger_ms=20, **extra
        )
        if transactional_id is not None:
            self._producer.init_transactions()

    def write(self, records: Sequence[ToSend]) -> list[Where]:
        sent = []
        for one in records:
            headers = [] if one.number is None else [(NUMBER, one.number)]
            sent.append(self._producer.send(one.topic, key=one.key, value=one.value, headers=headers))
        self._producer.flush()
        found = [future.get(_TIMEOUT_S) for future in sent]
        return [(one.partition, one.offset) for one in found]

    def transact(self, records: Sequence[ToSend], *, commit: bool) -> list[Where]:
        self._producer.begin_transaction()
        where = self.write(records)
        (self._producer.commit_transaction if commit else self._producer.abort_transaction)()
        return where

    def close(self) -> None:
        self._producer.close(timeout=_TIMEOUT_S)


class JavaProducer:
    """Kafka's own producer, in a process of Java that compiles `StockProducer.java` as it starts.

    Args:
        home: the folder whose `libs/` holds Kafka's jars.
    """

    def __init__(self, bootstrap: str, codec: str, transactional_id: str | None = None, *, home: Path) -> None:
        settings = [f"bootstrap.servers={bootstrap}", f"compression.type={codec}", "linger.ms=20", "acks=all"]
        if transactional_id is not None:
            settings.append(f"transactional.id={transactional_id}")
        jvm = ["java", "-Xms32m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        self._process = subprocess.Popen(
            [*jvm, "-cp", f"{home.resolve()}/libs/*", str(_SOURCE), *settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._answer()

    def write(self, records: Sequence[ToSend]) -> list[Where]:
        for one in records:
            self._say("SEND", one.topic, *map(_word, (one.key, one.value, one.number)))
        self._say("FLUSH")
        where = [tuple(map(int, line.split())) for line in self._answer()]
        return [(partition, offset) for partition, offset in where]

    def transact(self, records: Sequence[ToSend], *, commit: bool) -> list[Where]:
        self._say("BEGIN")
        self._answer()
        where = self.write(records)
        self._say("COMMIT" if commit else "ABORT")
        self._answer()
        return where

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(_TIMEOUT_S)
        self._process.stdout.close()

    def _say(self, *words: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(words) + "\n")

    def _answer(self) -> list[str]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.flush()
        lines: list[str] = []
        for line in self._process.stdout:
            if line.strip() == "done":
                return lines
            # slf4j says on the same stream that it has no logger.
            if line[:1].isdigit():
                lines.append(line)
        raise ConnectionError(f"the producer in Java ended with exit code {self._process.wait()}")


def _word(data: bytes | None) -> str:
    return "-" if data is None else base64.b64encode(data).decode()
