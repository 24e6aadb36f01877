"""Whether a log of millions of events can be started from: engine and trainer are killed and read all of it again.

    python -m benchmarks.long_log [--events 5000000] [--partitions 4]

The log holds a shop's small events. Engine and trainer are started on it, killed by SIGKILL once both read, and started
again without a snapshot, as on a new machine. The users of each of a hundred groups like other items, so that there is
something to learn.

    events, folded       written, and folded by the second engine: wanted equal
    reader_mb            the most memory that the engine's process that reads ever had: wanted below 500
    engine_mb, trainer_mb, broker_mb   the most that these had
    folded_s             from the second start to the last event
    pushed_s             from the second start to a model that serves: wanted within 20 minutes

With the environment variable `KAFKA_HOME` the broker is the Apache Kafka there, else the embedded one. It ends with 1
where a figure is not as wanted.
"""

from __future__ import annotations

import argparse
import os

# Before numpy loads, as in the engine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from random import Random

import psutil
from kafka.errors import for_code
from ousel.v1 import event_pb2

from benchmarks.engine_and_trainer import EngineAndTrainer
from benchmarks.large_records import most_mb
from benchmarks.report import Figure, report
from benchmarks.shop_log import catalog_record, item_id, write
from deploy.local.brokers import Broker, start_broker
from deploy.local.raw_batches import raw_batch, send_raw
from engine.config import Config, KafkaConfig, SnapshotConfig
from engine.events.producer import EventProducer
from engine.events.topics import ensure_topics

_READER_MB = 500
_BATCH = 10_000  # events
_GROUPS, _GROUP_ITEMS, _GROUP_USERS = 100, 100, 400
_FIRST_MS, _APART_MS = 1_700_000_000_000, 100
_READING_S, _FOLDED_S, _PUSHED_S = 300.0, 1200.0, 1200.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_log", description=__doc__.split("\n")[0])
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--partitions", type=int, default=4)
    args = parser.parse_args()
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="ousel-long-log-")))
        broker: Broker = start_broker(folder / "broker")
        opened.callback(broker.stop)
        kafka = KafkaConfig(**broker.client_settings(), events_partitions=args.partitions)
        config = Config(kafka=kafka, snapshot=SnapshotConfig(dir=folder / "snapshots", interval_s=86_400))
        ensure_topics(kafka)
        print(f"broker: {broker.name}; writing {args.events:,} events", flush=True)
        size = _write(kafka, args.events)
        first = EngineAndTrainer.start(config, folder, "first")
        with closing(first):
            first.until("both read", _READING_S, lambda: first.folded() > 0 and first.trainer_says("reading the log"))
            first.kill()
        shutil.rmtree(folder / "snapshots", ignore_errors=True)
        return _read_again(config, folder, args.events, size, broker)


def _events(first: int, count: int, partition: int, chance: Random) -> Iterator[bytes]:
    """A partition's events by users of its own: each likes the items of one group, some of them most."""
    for number in range(first, first + count):
        user = chance.randrange(_GROUPS * _GROUP_USERS)
        item = user % _GROUPS * _GROUP_ITEMS + int(_GROUP_ITEMS * chance.random() ** 2)
        event = event_pb2.Event(
            event_id=f"e{number}", user_id=f"user-{partition}-{user}", item_id=item_id(item), kind="view"
        )
        event.time.FromMilliseconds(_FIRST_MS + _APART_MS * number)
        yield event.SerializeToString()


def _write(kafka: KafkaConfig, events: int) -> int:
    """Writes the catalog and the events; returns the bytes of their batches."""
    with closing(EventProducer(kafka)) as producer:
        write(producer.send_item(catalog_record(item)) for item in range(_GROUPS * _GROUP_ITEMS))
    chance, size = Random(1), 0
    for first in range(0, events, _BATCH):
        partition = first // _BATCH % kafka.events_partitions
        batch = raw_batch(_events(first, min(_BATCH, events - first), partition, chance), "none")
        size += len(batch)
        code = send_raw(kafka.bootstrap, kafka.events_topic, partition, batch)
        if code:
            raise RuntimeError(f"the broker refuses a batch of {len(batch)} bytes: {for_code(code).__name__}")
    return size


def _read_again(config: Config, folder: Path, events: int, size: int, broker: Broker) -> int:
    began_s = time.monotonic()
    with closing(EngineAndTrainer.start(config, folder, "second")) as both:
        both.until("the log is folded", _FOLDED_S, lambda: both.folded() >= events)
        folded_s = time.monotonic() - began_s
        reader, *_ = psutil.Process(both.engine.pid).children()
        both.until("a model serves", _PUSHED_S, lambda: both.status().model_version > 0)
        figures: dict[str, Figure] = {
            "events": events,
            "folded": both.folded(),
            "log_mb": round(size / 2**20),
            "partitions": config.kafka.events_partitions,
            "reader_mb": round(most_mb(reader.pid)),
            "engine_mb": round(most_mb(both.engine.pid)),
            "trainer_mb": round(most_mb(both.trainer.pid)),
            "broker_mb": round(most_mb(broker.pid)),
            "folded_s": round(folded_s, 1),
            "pushed_s": round(time.monotonic() - began_s, 1),
            "broker": broker.name,
        }
    rows = [
        ("events, folded", f"{events:,}, {figures['folded']:,}"),
        ("what they take in the log", f"{figures['log_mb']} MB in {figures['partitions']} partitions"),
        (f"most memory of the process that reads; wanted below {_READER_MB} MB", f"{figures['reader_mb']} MB"),
        ("of the engine; the trainer", f"{figures['engine_mb']} MB; {figures['trainer_mb']} MB"),
        ("of the broker", f"{figures['broker_mb']} MB"),
        ("from the start to the last event", f"{figures['folded_s']} s"),
        ("from the start to a model that serves", f"{figures['pushed_s']} s"),
    ]
    report("long_log", f"A long log, broker: {broker.name}", rows, figures)
    return 0 if figures["folded"] == events and int(figures["reader_mb"]) < _READER_MB else 1


if __name__ == "__main__":
    sys.exit(main())
