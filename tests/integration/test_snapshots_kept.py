"""Whatever becomes of log and settings: no good snapshot is deleted, no wrong one used, no deleted item shown."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import ousel
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from ousel.v1 import catalog_pb2, event_pb2

from engine.config import EventsConfig, KafkaConfig
from engine.events.connection import connection_settings
from engine.events.topics import ensure_topics
from tests.integration.engines import DEADLINE_S, ITEMS, EngineProcess, load, purchase, running, until, write

pytestmark = pytest.mark.integration
apache = pytest.mark.skipif("KAFKA_HOME" not in os.environ, reason="the embedded broker has no such thing")

KINDS = EventsConfig().kinds
MORE_KINDS = json.dumps(KINDS | {"hide": 0.5})
# One record to a segment, cleaned at once, and no tombstone is kept.
CLEANED_AT_ONCE = {
    "cleanup.policy": "compact", "segment.ms": "50", "min.cleanable.dirty.ratio": "0.0", "delete.retention.ms": "0",
}  # fmt: skip


def by_hand(folder: Path, **more: str) -> dict[str, str]:
    """Settings of an engine that takes snapshots where it is asked to, and when it ends in order."""
    settings = {"DIR": str(folder), "ENGINE": "one", "INTERVAL_S": "3600", "KEEP": "1"}
    return {f"OUSEL_SNAPSHOT__{name}": value for name, value in settings.items()} | more


@contextmanager
def admin_of(kafka: KafkaConfig) -> Iterator[KafkaAdminClient]:
    with closing(KafkaAdminClient(**connection_settings(kafka))) as admin:
        yield admin


def content(folder: Path) -> dict[str, bytes]:
    """All that lies in the folder."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith(".")}


def refusal(kafka: KafkaConfig, log_path: Path, **settings: str) -> str:
    """The line by which a start is refused, and nothing else happens."""
    engine = EngineProcess(kafka, log_path, **settings)
    try:
        assert engine.process.wait(DEADLINE_S) == 1, engine.log()
    finally:
        engine.kill()
    assert "Traceback" not in engine.log()
    (line,) = [line for line in engine.log().splitlines() if line.startswith("ousel-engine: ")]
    return line


@pytest.fixture
def folder(kafka_config: KafkaConfig, tmp_path: Path) -> Path:
    """A snapshot of ten users with 200 events, and of 40 items; its engine has ended."""
    load(kafka_config)
    path = tmp_path / "snapshots"
    with running(kafka_config, tmp_path / "first.log", **by_hand(path)) as engine:
        assert engine.stop() == 0
    assert [one.name for one in path.glob("one-*")] == ["one-000000000001"]
    return path


def test_a_kind_is_appended_and_nothing_is_read_again_and_one_that_goes_is_refused(kafka_config, folder, tmp_path):
    with running(kafka_config, tmp_path / "2.log", **by_hand(folder, OUSEL_EVENTS__KINDS=MORE_KINDS)) as engine:
        with ousel.Client(engine.address, DEADLINE_S) as client:
            assert (client.status().users, client.status().events_folded) == (10, 200)
            write(kafka_config, [event_pb2.Event(user_id="u1", item_id=ITEMS[1], kind="hide")])
            until(lambda: client.status().events_folded == 201)
        assert "no snapshot" not in engine.log()
        assert engine.stop() == 0
    with admin_of(kafka_config) as admin:
        _cut(kafka_config, admin)
    before = content(folder)
    line = refusal(kafka_config, tmp_path / "3.log", **by_hand(folder))
    assert "events.kinds no longer has 'hide'" in line
    assert content(folder) == before


def _cut(kafka: KafkaConfig, admin: KafkaAdminClient) -> None:
    """Has the log lose its first record of each partition, as by retention; the embedded broker is let be."""
    if "KAFKA_HOME" not in os.environ:
        pytest.skip("the embedded broker deletes no records")
    admin.delete_records({TopicPartition(kafka.events_topic, at): 1 for at in range(kafka.events_partitions)})


@apache
def test_a_retention_that_has_passed_the_snapshot_is_said_and_the_snapshot_stays(kafka_config, folder, tmp_path):
    positions = write(kafka_config, [purchase(f"u{at % 10}", ITEMS[at % 40], f"late{at}") for at in range(100)])
    last = {at.partition: at.offset for at in sorted(positions, key=lambda at: at.offset)}
    with admin_of(kafka_config) as admin:
        admin.delete_records({TopicPartition(kafka_config.events_topic, at): offset for at, offset in last.items()})
    before = content(folder)
    line = refusal(kafka_config, tmp_path / "2.log", **by_hand(folder))
    assert "10 users, 200 events" in line
    assert "lies below the log's begin" in line
    assert content(folder) == before
    allowed = by_hand(folder, OUSEL_SNAPSHOT__ON_MISMATCH="replay")
    for run in range(3):  # each of which writes a snapshot of its own as it ends
        with running(kafka_config, tmp_path / f"allowed{run}.log", **allowed) as engine:
            write(kafka_config, [purchase("new", ITEMS[run], f"new{run}")])
            with ousel.Client(engine.address, DEADLINE_S) as client:
                until(lambda client=client: client.status().lag == 0)
            assert engine.stop() == 0
    assert content(folder).items() >= before.items()
    assert len(list(folder.glob("one-*"))) == 2


def test_a_snapshot_of_another_cluster_is_not_used(kafka_config, folder, tmp_path):
    path = folder / "one-000000000001" / "manifest.json"
    said = json.loads(path.read_text())
    assert said["log"]["cluster_id"]
    path.write_text(json.dumps(said | {"log": said["log"] | {"cluster_id": "elsewhere"}}))
    path.with_name("manifest.json.sha256").write_text(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  manifest.json\n"
    )
    before = content(folder)
    line = refusal(kafka_config, tmp_path / "2.log", **by_hand(folder))
    assert "it was taken of cluster elsewhere, the log is of cluster" in line
    assert "10 users, 200 events, 40 catalog records" in line
    assert content(folder) == before


@apache
def test_a_snapshot_of_a_topic_that_was_made_anew_and_refilled_is_not_used(kafka_config, folder, tmp_path):
    before = content(folder)
    with admin_of(kafka_config) as admin:
        admin.delete_topics([kafka_config.events_topic])
        until(lambda: kafka_config.events_topic not in admin.list_topics())
    ensure_topics(kafka_config)
    write(kafka_config, [purchase(f"other{at % 7}", ITEMS[at % 40], f"other{at}") for at in range(2000)])
    line = refusal(kafka_config, tmp_path / "2.log", **by_hand(folder))
    assert "10 users, 200 events" in line
    assert "which was deleted" in line
    assert content(folder) == before
    allowed = by_hand(folder, OUSEL_SNAPSHOT__ON_MISMATCH="replay")
    with running(kafka_config, tmp_path / "3.log", **allowed) as engine, ousel.Client(engine.address) as client:
        assert (client.status().events_folded, client.status().users) == (2000, 7)
        assert engine.stop() == 0
    assert content(folder).items() >= before.items()


@apache
def test_an_item_whose_deletion_was_compacted_away_is_not_shown(kafka_config, tmp_path):
    with admin_of(kafka_config) as admin:
        admin.delete_topics([kafka_config.items_topic])
        until(lambda: kafka_config.items_topic not in admin.list_topics())
        topic = {"num_partitions": 1, "replication_factor": 1, "configs": CLEANED_AT_ONCE}
        admin.create_topics({kafka_config.items_topic: topic}, timeout_ms=30_000)
        admin.wait_for_topics([kafka_config.items_topic], timeout_ms=30_000)
    load(kafka_config)
    folder, gone = tmp_path / "snapshots", ITEMS[0]
    with running(kafka_config, tmp_path / "1.log", **by_hand(folder)) as engine, ousel.Client(engine.address) as client:
        assert gone in {item.item_id for item in client.recommend("somebody", k=100).items}
        assert engine.stop() == 0
    shutil.copytree(folder, tmp_path / "kept")
    with closing(KafkaProducer(**connection_settings(kafka_config))) as producer:
        producer.send(kafka_config.items_topic, key=gone.encode(), value=None).get(DEADLINE_S)
    number = 0

    def cleaned() -> bool:
        nonlocal number
        number += 1
        # A segment is cleaned once it is closed, and it is closed by the next record.
        write(kafka_config, [], [catalog_pb2.Item(item_id="filler", title=f"Filler {number}")])
        return gone not in keys_of(kafka_config)

    until(cleaned, lambda: keys_of(kafka_config))
    with running(kafka_config, tmp_path / "2.log", **by_hand(folder)) as engine, ousel.Client(engine.address) as client:
        assert "1 of its items are in the topic no more, and are deleted" in engine.log()
        shown = {item.item_id for item in client.recommend("somebody", k=100).items}
        assert gone not in shown
        assert set(ITEMS[1:]) & shown
        assert client.status().events_folded == 200
        assert engine.stop() == 0
    assert content(tmp_path / "kept").keys() <= {*content(folder), *content(tmp_path / "kept")}


def keys_of(kafka: KafkaConfig) -> set[str]:
    """The keys of all records that the items topic has."""
    partition = TopicPartition(kafka.items_topic, 0)
    with closing(KafkaConsumer(**connection_settings(kafka), enable_auto_commit=False)) as consumer:
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        end, found = consumer.end_offsets([partition])[partition], set()
        while consumer.position(partition) < end:
            for records in consumer.poll(timeout_ms=200).values():
                found |= {record.key.decode() for record in records}
    return found
