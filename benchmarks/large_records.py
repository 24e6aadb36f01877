"""Whether large records can fill the memory: thousands of events of 900 kB that lie in the log as a few MB.

    python -m benchmarks.large_records [--quick]

The log holds valid events with a long attribute that nothing reads: 4,000 of them in two batches of zstd and two of
gzip, as small as these codecs make them, and 2,000 more by confluent-kafka in batches of its own in all four codecs. An
engine in a process of its own folds all of them. `--quick` writes a tenth of that.

    records, folded      written and folded: wanted equal
    few_batches_mb       what the 4,000 take in the log; unpacked_mb is what all take once they are unpacked
    reader_mb            the most memory that the process that reads ever had: wanted below 400
    engine_mb            the most that the engine had, and engine_idle_mb once it served an empty log
    seconds              from the start of the engine to the last record

With the environment variable `KAFKA_HOME` the broker is the Apache Kafka there, else the embedded one. It ends with 1
where a figure is not as wanted.
"""

from __future__ import annotations

import argparse
import os

# Before numpy loads, as in the engine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import ousel
import psutil
from kafka.errors import for_code
from ousel.v1 import event_pb2

from benchmarks.recovery_engine import KillableEngine
from benchmarks.report import Figure, report
from deploy.local.brokers import start_broker
from deploy.local.raw_batches import raw_batch, send_raw
from deploy.local.stock_producers import ConfluentProducer, ToSend
from engine.config import Config, KafkaConfig, SnapshotConfig
from engine.events.topics import ensure_topics

_RECORD_BYTES = 900_000
_READER_MB = 400
_TIMEOUT_S = 600.0
_MB = 2**20
_PARTITIONS = 2
_STOCK_BATCH = 20  # records; snappy makes about a megabyte of them, which is what a broker takes at most


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_records", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the records")
    share = 10 if parser.parse_args().quick else 1
    with tempfile.TemporaryDirectory(prefix="ousel-large-") as folder_name:
        folder = Path(folder_name)
        with start_broker(folder / "broker") as broker:
            kafka = KafkaConfig(**broker.client_settings(), events_partitions=_PARTITIONS)
            config = Config(kafka=kafka, snapshot=SnapshotConfig(dir=folder / "snapshots", interval_s=3600))
            ensure_topics(kafka)
            idle = KillableEngine(config, folder / "idle.log")
            with closing(idle):
                idle.wait_until_serving()
                idle_mb = most_mb(idle.pid)
            print(f"broker: {broker.name}; writing", flush=True)
            log_bytes = _write_few_batches(kafka, 1000 // share)
            _write_by_producers(kafka, 500 // share)
            records = (4000 + 2000) // share
            return _read(config, folder, records, log_bytes, idle_mb, broker.name)


def _events(kind: str, count: int) -> Iterator[bytes]:
    """Events of 900 kB, nearly all of it a text that nothing reads."""
    for number in range(count):
        event = event_pb2.Event(
            event_id=f"{kind}-{number}", user_id=f"user-{number % 50}", item_id=f"item-{number % 20}"
        )
        event.attributes["note"] = chr(97 + number % 26) * (_RECORD_BYTES - 100)
        yield event.SerializeToString()


def _write_few_batches(kafka: KafkaConfig, records: int) -> int:
    """Four batches of so many records each; returns what they take in the log."""
    size = 0
    codecs: list[Literal["gzip", "zstd"]] = ["zstd", "gzip", "zstd", "gzip"]
    for number, codec in enumerate(codecs):
        batch = raw_batch(_events(f"{codec}{number}", records), codec)
        size += len(batch)
        code = send_raw(kafka.bootstrap, kafka.events_topic, number % _PARTITIONS, batch)
        if code:
            raise RuntimeError(f"the broker refuses a batch of {len(batch)} bytes: {for_code(code).__name__}")
    return size


def _write_by_producers(kafka: KafkaConfig, records: int) -> None:
    """So many records in each codec."""
    for codec in ("gzip", "snappy", "lz4", "zstd"):
        settings: dict[str, Any] = {"message.max.bytes": 100_000_000, "batch.size": 20_000_000, "linger.ms": 200}
        with closing(ConfluentProducer(kafka.bootstrap, codec, **settings)) as producer:
            batch: list[ToSend] = []
            for number, value in enumerate(_events(codec, records)):
                batch.append(ToSend(kafka.events_topic, b"user-%d" % (number % 50), value))
                if len(batch) == _STOCK_BATCH or number == records - 1:
                    producer.write(batch)
                    batch = []


def _read(config: Config, folder: Path, records: int, log_bytes: int, idle_mb: float, broker: str) -> int:
    began_s = time.monotonic()
    with closing(KillableEngine(config, folder / "engine.log")) as engine:
        engine.wait_until_serving()
        (reader,) = psutil.Process(engine.pid).children()
        with ousel.Client(engine.address, timeout_s=60) as client:
            while (folded := client.status().events_folded) < records and time.monotonic() < began_s + _TIMEOUT_S:
                time.sleep(0.2)
        seconds = time.monotonic() - began_s
        reader_mb, engine_mb = most_mb(reader.pid), most_mb(engine.pid)
    figures: dict[str, Figure] = {
        "records": records,
        "folded": folded,
        "few_batches_mb": round(log_bytes / _MB, 2),
        "unpacked_mb": round(records * _RECORD_BYTES / _MB),
        "reader_mb": round(reader_mb),
        "engine_mb": round(engine_mb),
        "engine_idle_mb": round(idle_mb),
        "seconds": round(seconds, 1),
        "broker": broker,
    }
    rows = [
        ("events of 900 kB, folded", f"{records:,}, {folded:,}"),
        ("two thirds of them lie in four batches of", f"{figures['few_batches_mb']} MB"),
        ("all of them unpacked", f"{figures['unpacked_mb']:,} MB"),
        (f"most memory of the process that reads; wanted below {_READER_MB} MB", f"{reader_mb:.0f} MB"),
        ("most memory of the engine; with an empty log", f"{engine_mb:.0f} MB; {idle_mb:.0f} MB"),
        ("from the start to the last record", f"{seconds:.1f} s"),
    ]
    report("large_records", f"Large records, broker: {broker}", rows, figures)
    return 0 if folded == records and reader_mb < _READER_MB else 1


def most_mb(pid: int) -> float:
    """The most resident memory that a process ever had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has ended")


if __name__ == "__main__":
    sys.exit(main())
