"""The log in Kafka: how to reach it, and a source that reads it from its first record.

A thread polls Kafka ahead of the fold into a bounded queue of batches. Nothing is committed: state is rebuilt from the
log at every start, so every process reads every partition and no consumer group is needed.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError
from kafka.net.compat import KafkaNetClient

from engine.config import KafkaConfig
from engine.events.batch import Record
from engine.events.source import SourceError

log = logging.getLogger(__name__)

_FIRST_BACKOFF_S = 0.25
_MAX_BACKOFF_S = 10.0
_CONNECT_S = 2.0  # for one address to accept a connection
_BOOTSTRAP_MS = 3000  # for a broker that accepted one to answer

_FETCH_WAIT_MS = 50  # how long the broker may hold a fetch that finds nothing
# Pauses between polls that find nothing. Kafka holds a fetch until there is something, but the embedded broker answers
# at once, and the client would ask again without a break: two idle readers took most of two cores.
_FIRST_PAUSE_S = 0.001
MAX_PAUSE_S = 0.005
_LOOK_S = 0.1  # how often positions are looked at while nothing comes
_CHECK_S = 1.0  # how often the connection is looked at


def connection_settings(config: KafkaConfig) -> dict[str, Any]:
    """The settings that kafka-python's consumer, producer and admin client share."""
    settings: dict[str, Any] = {
        "bootstrap_servers": config.bootstrap.split(","),
        "client_id": "ousel",
        "request_timeout_ms": config.request_timeout_ms,
        "bootstrap_timeout_ms": config.request_timeout_ms,
        # After an outage, be back within a second of the broker.
        "reconnect_backoff_max_ms": 1000,
        "security_protocol": config.security_protocol,
    }
    if config.ssl_cafile is not None:
        settings["ssl_cafile"] = str(config.ssl_cafile)
    if config.sasl_mechanism is not None:
        settings["sasl_mechanism"] = config.sasl_mechanism
        settings["sasl_plain_username"] = config.sasl_username
        settings["sasl_plain_password"] = config.sasl_password.get_secret_value() if config.sasl_password else None
    return settings


def wait_for_broker(config: KafkaConfig, stop: threading.Event, report: Callable[[str], None]) -> bool:
    """Tries until a broker answers, with pauses from 0.25 s that double up to 10 s.

    Args:
        stop: ends the wait.
        report: gets one line before each pause: the address, what to check and when the next try comes.

    Returns:
        True once a broker answered, False where `stop` came first.
    """
    backoff_s = _FIRST_BACKOFF_S
    while not stop.is_set():
        problem = _connection_problem(config)
        if problem is None:
            return True
        report(f"{problem}; next try in {backoff_s:g} s")
        stop.wait(backoff_s)
        backoff_s = min(backoff_s * 2, _MAX_BACKOFF_S)
    return False


def _connection_problem(config: KafkaConfig) -> str | None:
    # The plain connection first: it is refused at once, where the client would go on trying.
    if not any(_accepts(address) for address in config.bootstrap.split(",")):
        return f"no Kafka broker at {config.bootstrap}: check kafka.bootstrap and that the broker runs"
    # The bare client: a consumer, producer or admin client that fails in its constructor leaves a thread behind.
    client = KafkaNetClient(**connection_settings(config))
    try:
        client.get_broker_version(timeout_ms=_BOOTSTRAP_MS)
    except (KafkaError, OSError, ValueError) as error:
        problem = f"{config.bootstrap} accepts connections but does not answer as a Kafka broker ({error})"
        if config.security_protocol == "PLAINTEXT":
            return f"{problem}: check the port, and whether the broker wants kafka.security_protocol"
        # A broker hangs up on bad credentials without a word, so all the client knows is that time ran out.
        return (
            f"{problem}: check kafka.security_protocol={config.security_protocol}, kafka.sasl_mechanism,"
            " kafka.sasl_username, kafka.sasl_password and kafka.ssl_cafile; a wrong password looks like this too"
        )
    finally:
        client.close()
    return None


def _accepts(address: str) -> bool:
    host, _, port = address.strip().rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


def _consumer_settings(config: KafkaConfig) -> dict[str, Any]:
    return connection_settings(config) | {
        "enable_auto_commit": False,
        "fetch_min_bytes": 1,
        "fetch_max_wait_ms": _FETCH_WAIT_MS,
        "max_poll_records": config.max_poll_records,
        "allow_auto_create_topics": False,
        # Starting over where the log lost our place would fold records twice: `KafkaSource` fails instead.
        "auto_offset_reset": "none",
    }


class _Batch(NamedTuple):
    records: list[Record]
    positions: dict[TopicPartition, int]  # next offset of each partition after these records


class KafkaSource:
    """Reads topics from their first record; an `EventSource`.

    The items topic as it stands at the start comes before any event, so that history meets a known catalog.

    Args:
        topics: those to read; the events and items topics unless given.
        max_pause_s: how much later than at once a record may be noticed after a silence; longer costs less.

    Raises:
        SourceError: the broker is away or a topic doesn't exist.
    """

    def __init__(
        self, config: KafkaConfig, topics: Sequence[str] | None = None, *, max_pause_s: float = MAX_PAUSE_S
    ) -> None:
        self._config = config
        self._max_pause_s = max_pause_s
        self._ready = threading.Condition()
        self._queue: deque[_Batch] = deque()
        self._woken = False
        self._closing = threading.Event()
        self._pause_s = _FIRST_PAUSE_S
        self._looked_s = 0.0
        self._failure: SourceError | None = None
        try:
            self._consumer = KafkaConsumer(**_consumer_settings(config))
        except KafkaError as error:
            raise SourceError(f"no Kafka broker answers at {config.bootstrap}: {error}") from error
        try:
            self._assign(topics or (config.events_topic, config.items_topic))
        except BaseException as error:
            self._consumer.close()
            if isinstance(error, KafkaError):
                raise SourceError(f"the topics at {config.bootstrap} can't be read: {error}") from error
            raise
        self._thread = threading.Thread(target=self._run, name="kafka-source", daemon=True)
        self._thread.start()

    def _assign(self, topics: Sequence[str]) -> None:
        partitions: list[TopicPartition] = []
        for topic in topics:
            found = self._consumer.partitions_for_topic(topic)
            if not found:
                raise SourceError(f"topic {topic!r} does not exist at {self._config.bootstrap}")
            partitions += [TopicPartition(topic, partition) for partition in sorted(found)]
        self._consumer.assign(partitions)
        begin = self._consumer.beginning_offsets(partitions)
        self._start: dict[TopicPartition, int] = self._consumer.end_offsets(partitions)
        for partition in partitions:
            self._consumer.seek(partition, begin[partition])
        self._ends = dict(self._start)  # as last known
        self._polled: dict[TopicPartition, int] = dict(begin)
        self._returned: dict[TopicPartition, int] = dict(begin)
        self._catalog = [partition for partition in partitions if partition.topic == self._config.items_topic]
        if self._catalog:
            self._consumer.pause(*(partition for partition in partitions if partition not in self._catalog))

    def poll(self, timeout_s: float) -> list[Record]:
        """Returns the next records, or none after `timeout_s` or an earlier `wake`. See `EventSource`."""
        with self._ready:
            self._ready.wait_for(lambda: self._queue or self._woken or self._failure, timeout_s)
            self._woken = False
            if not self._queue and self._failure:
                raise self._failure
            records: list[Record] = []
            while self._queue and len(records) + len(self._queue[0].records) <= self._config.max_poll_records:
                batch = self._queue.popleft()
                records += batch.records
                self._returned.update(batch.positions)
            self._ready.notify_all()
            return records

    def wake(self) -> None:
        with self._ready:
            self._woken = True
            self._ready.notify_all()

    def lag(self) -> int:
        return sum(self.lag_by_partition().values())

    def lag_by_partition(self) -> dict[tuple[str, int], int]:
        """Records not returned yet by (topic, partition), as of the last fetch of each."""
        with self._ready:
            return {
                (partition.topic, partition.partition): max(0, end - self._returned[partition])
                for partition, end in self._ends.items()
            }

    def caught_up(self) -> bool:
        with self._ready:
            return all(self._returned[partition] >= end for partition, end in self._start.items())

    def close(self) -> None:
        self._closing.set()
        with self._ready:
            self._ready.notify_all()
        self._thread.join()
        self._consumer.close()

    def _run(self) -> None:
        connected, check_at = True, time.monotonic() + _CHECK_S
        while not self._closing.is_set():
            try:
                self._fetch()
            except OffsetOutOfRangeError as error:
                self._fail(f"the log no longer holds the records that come next ({error}); restart to read it anew")
            except KafkaError as error:
                if not error.retriable:
                    self._fail(f"reading from {self._config.bootstrap} failed: {error}")
                log.debug("a fetch failed and will be repeated: %s", error)
                self._closing.wait(_LOOK_S)
            except Exception as error:
                log.exception("the polling thread failed")
                self._fail(f"reading from {self._config.bootstrap} failed: {error!r}")
            if time.monotonic() >= check_at:
                check_at = time.monotonic() + _CHECK_S
                connected = self._check_connection(connected)

    def _fetch(self) -> None:
        """Moves what one poll of Kafka finds into the queue, and waits there while it is full."""
        # Step 1. The catalog as it stood at the start is through: let the events in.
        if self._catalog and all(self._polled[partition] >= self._start[partition] for partition in self._catalog):
            self._consumer.resume(*self._consumer.paused())
            self._catalog = []
        # Step 2. Poll.
        fetched = self._consumer.poll(timeout_ms=0)
        if fetched:
            self._pause_s = _FIRST_PAUSE_S
        else:
            self._closing.wait(self._pause_s)
            self._pause_s = min(2 * self._pause_s, self._max_pause_s)
            if time.monotonic() - self._looked_s < _LOOK_S:
                return
        self._looked_s = time.monotonic()
        records = [
            Record(r.topic, r.partition, r.offset, -1 if r.timestamp is None else r.timestamp, r.key, r.value)
            for partition in fetched.values()
            for r in partition
        ]
        # Step 3. Note positions. They, not the last record, say how far we are: compaction and transactions leave
        # offsets without a record.
        positions: dict[TopicPartition, int] = {}
        for partition, before in self._polled.items():
            position = self._consumer.position(partition, timeout_ms=0)
            if position is not None and position != before:
                positions[partition] = position
        ends = {partition: self._consumer.highwater(partition) for partition in positions}
        self._polled.update(positions)
        # Step 4. Queue them.
        with self._ready:
            for partition, end in ends.items():
                self._ends[partition] = max(self._ends[partition], positions[partition], end or 0)
            if not positions:
                return
            self._ready.wait_for(lambda: self._closing.is_set() or len(self._queue) < self._config.queue_batches)
            self._queue.append(_Batch(records, positions))
            self._ready.notify_all()

    def _fail(self, reason: str) -> None:
        with self._ready:
            self._failure = SourceError(reason)
            self._closing.set()
            self._ready.notify_all()

    def _check_connection(self, connected: bool) -> bool:
        """Says once that the broker went, and once that it is back; the client itself reconnects."""
        now = self._consumer.metrics()["consumer-metrics"].get("connection-count", 0) > 0
        if connected and not now:
            log.warning("no Kafka broker answers at %s; reading goes on once one does", self._config.bootstrap)
        elif now and not connected:
            log.warning("connected to Kafka at %s again", self._config.bootstrap)
        return now
