"""How fast events come in: from Kafka through decoder and fold, beside a bare loop that polls them and drops them.

    python -m benchmarks.ingest [--quick]

Both read the same topic of 4 partitions in turns, several times; medians count. The fold alone is timed on decoded
batches of 4,096 events by users drawn at random from 1,000,000 that the state knows already, each in its partition:
batches of one partition in turn, as a poll hands over a backlog, and batches of all four evenly, which cost four folds
each. With the environment variable `KAFKA_HOME` the broker is the Apache Kafka there, else the embedded one.
"""

from __future__ import annotations

import argparse
import os

# Before numpy loads, as in the engine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from ousel.v1 import event_pb2

from benchmarks.report import report
from deploy.local.brokers import start_broker
from engine import collector
from engine.config import Config, KafkaConfig
from engine.events.batch import Decoded, EventBatch
from engine.events.codec import Decoder
from engine.events.kafka import KafkaSource
from engine.events.process import ProcessSource
from engine.events.source import start_at_beginning
from engine.events.topics import ensure_topics
from engine.state.state import State

PARTITIONS = 4
BATCH = 4096
KNOWN_USERS = 1_000_000
ITEMS = 50_000
_KINDS = ("view", "view", "view", "view", "click", "click", "cart", "purchase")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="within 50 s")
    quick = parser.parse_args().quick
    records, turns, batches = (100_000, 5, 60) if quick else (1_000_000, 7, 400)
    torch.set_num_threads(1)
    collector.set_aside()  # as in the engine
    with tempfile.TemporaryDirectory(prefix="ousel-ingest-") as folder, start_broker(Path(folder)) as broker:
        config = Config(kafka=KafkaConfig(bootstrap=broker.bootstrap, events_partitions=PARTITIONS))
        name = getattr(broker, "name", "embedded")
        print(f"broker: {name}; writing {records:,} events", flush=True)
        _fill(config.kafka, records)
        _bare_poll_s(config.kafka, records)  # warms the broker
        bare_s, engine_s = [], []
        for _ in range(turns):
            bare_s.append(_bare_poll_s(config.kafka, records))
            engine_s.append(_engine_s(config, records))
    print(f"folding: {KNOWN_USERS:,} users first", flush=True)
    fold_s, mixed_s = _fold_batch_s(config, batches)
    figures: dict[str, float | int | str] = {
        "records_per_s": round(records / median(engine_s)),
        "bare_poll_records_per_s": round(records / median(bare_s)),
        "ratio": round(median(bare_s) / median(engine_s), 3),
        "fold_events_per_s": round(BATCH / fold_s),
        "fold_mixed_events_per_s": round(BATCH / mixed_s),
        "broker": name,
        "records": records,
    }
    rows = [
        ("Kafka, decode and fold", f"{figures['records_per_s']:,} records/s"),
        ("a loop that polls the same topic and drops the records", f"{figures['bare_poll_records_per_s']:,} records/s"),
        ("ratio", f"{figures['ratio']}"),
        (
            f"fold alone (decoding not included), {KNOWN_USERS:,} known users",
            f"{figures['fold_events_per_s']:,} events/s",
        ),
        ("the same, every batch of all partitions", f"{figures['fold_mixed_events_per_s']:,} events/s"),
    ]
    report("ingest", f"Events in: {records:,} records, median of {turns}, broker: {name}", rows, figures)


def _fill(config: KafkaConfig, count: int) -> None:
    ensure_topics(config)
    producer = KafkaProducer(
        bootstrap_servers=config.bootstrap, acks=1, linger_ms=50, batch_size=256 * 1024, enable_idempotence=False
    )
    for key, value in _payloads(count):
        producer.send(config.events_topic, key=key, value=value)
    producer.flush()
    producer.close()


def _payloads(count: int) -> Iterator[tuple[bytes, bytes]]:
    """Events as a shop's producer writes them: unique ids, many users, few items that are in nearly all of them."""
    draw = np.random.default_rng(0)
    users = draw.integers(0, KNOWN_USERS, count).tolist()
    items = np.minimum(draw.zipf(1.2, count), ITEMS).tolist()
    kinds = draw.integers(0, len(_KINDS), count).tolist()
    names = draw.bytes(16 * count).hex()
    now_ms = time.time_ns() // 1_000_000 - count
    for number, (user, item, kind) in enumerate(zip(users, items, kinds, strict=True)):
        event = event_pb2.Event(
            event_id=names[32 * number : 32 * number + 32],
            user_id=f"user-{user}",
            session_id=f"session-{user}-{number % 3}",
            item_id=f"item-{item}",
            kind=_KINDS[kind],
            value=1 + number % 3,
        )
        event.time.FromMilliseconds(now_ms + number)
        yield event.user_id.encode(), event.SerializeToString()


def _bare_poll_s(config: KafkaConfig, records: int) -> float:
    consumer = KafkaConsumer(
        bootstrap_servers=config.bootstrap, enable_auto_commit=False, max_poll_records=config.max_poll_records
    )
    partitions = [TopicPartition(config.events_topic, number) for number in range(PARTITIONS)]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    start_s, polled = time.perf_counter(), 0
    while polled < records:
        polled += sum(map(len, consumer.poll(timeout_ms=1000).values()))
    elapsed_s = time.perf_counter() - start_s
    consumer.close()
    return elapsed_s


def _engine_s(config: Config, records: int) -> float:
    """The engine's own way: a process that polls, and this one, which decodes and folds."""
    kafka = config.kafka
    decoder = Decoder(kafka, config.events, config.state.features_dim)
    state = _state(config)
    factory = partial(KafkaSource, kafka)
    with closing(ProcessSource(factory, kafka.queue_batches, kafka.max_poll_records)) as source:
        while not source.assignment():
            source.poll(1.0)
        start_s, folded = time.perf_counter(), 0
        start_at_beginning(source)
        while folded < records:
            decoded = decoder.decode(source.poll(1.0))
            state.fold(decoded)
            folded += len(decoded.events)
        return time.perf_counter() - start_s


def _state(config: Config) -> State:
    return State(config.state, config.events, events_topic=config.kafka.events_topic, partitions=PARTITIONS)


def _fold_batch_s(config: Config, batches: int) -> tuple[float, float]:
    """Median time of one batch of `BATCH` events by known users: of one partition, and of all."""
    state = _state(config)
    draw = np.random.default_rng(1)
    offset = 0
    for first in range(0, KNOWN_USERS, BATCH):
        state.fold(_decoded(config, np.arange(first, min(first + BATCH, KNOWN_USERS)), draw, offset))
        offset += BATCH
    times_s: dict[bool, list[float]] = {False: [], True: []}
    for number in range(2 * batches):
        mixed = number % 2 == 1
        users = draw.integers(0, KNOWN_USERS, BATCH)
        if not mixed:
            users += number // 2 % PARTITIONS - users % PARTITIONS
        decoded = _decoded(config, users, draw, offset)
        offset += BATCH
        start_s = time.perf_counter()
        state.fold(decoded)
        times_s[mixed].append(time.perf_counter() - start_s)
    return median(times_s[False]), median(times_s[True])


def _decoded(config: Config, users: np.ndarray, draw: np.random.Generator, first_offset: int) -> Decoded:
    """Events of `users`, each in the partition that is the user's own, partition by partition as a poll has them."""
    users = users[np.argsort(users % PARTITIONS, kind="stable")]
    count = len(users)
    names = draw.bytes(16 * count).hex()
    offset = np.arange(first_offset, first_offset + count, dtype=np.int64)
    time_ms = 1_700_000_000_000 + offset
    partition = (users % PARTITIONS).astype(np.int32)
    events = EventBatch(
        event_id=[names[at : at + 32] for at in range(0, 32 * count, 32)],
        user_id=[f"user-{user}" for user in users.tolist()],
        session_id=[f"session-{user}" for user in users.tolist()],
        item_id=[f"item-{item}" for item in np.minimum(draw.zipf(1.2, count), ITEMS).tolist()],
        target_id=[""] * count,
        kind=draw.integers(0, 4, count).astype(np.int8),
        time_ms=time_ms,
        value=np.ones(count, np.float32),
        partition=partition,
        offset=offset,
        timestamp_ms=time_ms,
        forget=np.zeros(count, np.bool_),
        ends=np.zeros(count, np.bool_),
    )
    positions = {(config.kafka.events_topic, number): first_offset + count for number in np.unique(partition).tolist()}
    return Decoded(events, [], [], positions)


if __name__ == "__main__":
    main()
