"""What is left after an engine has ended, in order or not: the same state, from snapshots that can be trusted."""

from __future__ import annotations

import os
import re
from contextlib import closing
from functools import partial
from pathlib import Path

import ousel
import pytest
from kafka.admin import KafkaAdminClient

from benchmarks.recovery_producers import StockWriters
from benchmarks.recovery_trials import Trials
from engine.config import Config, KafkaConfig, SnapshotConfig, StateConfig
from engine.events.connection import connection_settings
from engine.events.source import Partition
from engine.snapshot.manifest import read_manifest
from tests.integration.conftest import SECURITY
from tests.integration.engines import DEADLINE_S, ITEMS, load, purchase, running, until, write

pytestmark = pytest.mark.integration


def by_hand(folder: Path) -> dict[str, str]:
    """Settings of an engine that takes snapshots where it is asked to, and when it ends in order."""
    return {
        "OUSEL_SNAPSHOT__DIR": str(folder),
        "OUSEL_SNAPSHOT__ENGINE": "one",
        "OUSEL_SNAPSHOT__INTERVAL_S": "3600",
    }


def write_more(kafka: KafkaConfig, client: ousel.Client) -> None:
    """200 more events than `load` wrote, by the same users, folded."""
    write(kafka, [purchase(f"u{at % 10}", ITEMS[at % 40], f"more{at}") for at in range(200)])
    until(lambda: client.status().events_folded == 400)


def committed(kafka: KafkaConfig) -> dict[Partition, int]:
    with closing(KafkaAdminClient(**connection_settings(kafka))) as admin:
        found = admin.list_group_offsets(kafka.group_id).get(kafka.group_id, {})
    return {(p.topic, p.partition): at.offset for p, at in found.items() if at.offset >= 0}


def test_killed_in_a_snapshot_and_in_replay_it_ends_as_if_it_had_never_stopped(kafka_config, tmp_path):
    config = Config(
        kafka=kafka_config,
        state=StateConfig(max_users=1500, max_items=380, history=16, neighbors=8, duplicates_window=8192),
        snapshot=SnapshotConfig(dir=tmp_path / "snapshots", engine="one", interval_s=0.3, piece_bytes=16_384),
    )
    with Trials(config, kafka_config.events_partitions, tmp_path, seed=1, events_per_s=300) as trials:
        trials.engine_trial("snapshot")
        trials.engine_trial("replay")
        trials.finish()
    assert trials.tally.differences == []
    assert (trials.tally.trials, trials.tally.identical) == (2, 2)
    assert (trials.tally.lost, trials.tally.twice) == (0, 0)
    assert trials.tally.killed_while.total() == 3


@pytest.mark.skipif(SECURITY != "PLAINTEXT", reason="the stock producers are set up without TLS and password")
def test_killed_beside_producers_that_compress_and_abort_it_ends_as_if_it_had_never_stopped(kafka_config, tmp_path):
    config = Config(
        kafka=kafka_config,
        state=StateConfig(max_users=1500, max_items=380, history=16, neighbors=8, duplicates_window=8192),
        snapshot=SnapshotConfig(dir=tmp_path / "snapshots", engine="one", interval_s=0.3, piece_bytes=16_384),
    )
    home = os.environ.get("KAFKA_HOME")
    stock = partial(StockWriters, kafka_config, 1, Path(home) if home else None)
    with Trials(config, kafka_config.events_partitions, tmp_path, seed=1, events_per_s=100, stock=stock) as trials:
        until(lambda: trials.stock.committed and (trials.stock.aborted or not home), lambda: trials.stock.failures)
        trials.engine_trial("live")
        trials.finish()
    assert trials.tally.differences == []
    assert (trials.tally.trials, trials.tally.identical) == (1, 1)
    assert (trials.tally.lost, trials.tally.twice) == (0, 0)


def test_after_an_orderly_end_nothing_is_replayed(kafka_config, tmp_path):
    load(kafka_config)
    settings = by_hand(tmp_path / "snapshots")
    with running(kafka_config, tmp_path / "1.log", **settings) as engine, ousel.Client(engine.address) as client:
        before = client.get_digest()
        assert engine.stop() == 0
    with running(kafka_config, tmp_path / "2.log", **settings) as engine, ousel.Client(engine.address) as client:
        assert client.get_digest() == before
        assert re.findall(r"restored at offset \d+, (\d+) records to replay", engine.log()) == ["0"] * 3
        assert "catalog: 40 records restored" in engine.log()


def test_a_damaged_snapshot_is_named_and_the_one_before_it_used(kafka_config, tmp_path):
    load(kafka_config)
    folder = tmp_path / "snapshots"
    with running(kafka_config, tmp_path / "1.log", **by_hand(folder)) as engine:
        with ousel.Client(engine.address, DEADLINE_S) as client:
            client.take_snapshot()
            write_more(kafka_config, client)
            client.take_snapshot()
            before = client.get_digest()
        engine.kill()
    older, newest = sorted(folder.glob("one-*"))
    damaged = newest / "slice-0.tables"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with running(kafka_config, tmp_path / "2.log", **by_hand(folder)) as engine:
        with ousel.Client(engine.address, DEADLINE_S) as client:
            assert client.get_digest() == before
        log = engine.log()
    assert f"snapshot {newest} skipped for partition 0 of the events: {damaged}: has SHA-256" in log
    assert f"snapshot {older}: partition 0 of the events" in log
    assert f"snapshot {newest}: partition 1 of the events" in log
    replayed = [int(count) for count in re.findall(r"restored at offset \d+, (\d+) records to replay", log)]
    assert replayed[0] > 0
    assert replayed[1:] == [0, 0]


def test_committed_positions_are_those_of_the_newest_snapshot_and_never_ahead(kafka_config, tmp_path):
    load(kafka_config)
    folder = tmp_path / "snapshots"
    with running(kafka_config, tmp_path / "1.log", **by_hand(folder)) as engine:
        with ousel.Client(engine.address, DEADLINE_S) as client:
            assert committed(kafka_config) == {}
            taken = {(at.topic, at.partition): at.offset + 1 for at in client.take_snapshot()}
            assert sum(at for (topic, _), at in taken.items() if topic == kafka_config.events_topic) == 200
            until(lambda: committed(kafka_config) == taken, lambda: committed(kafka_config))
            write_more(kafka_config, client)
            assert client.get_digest().partitions[0].reflects.offset >= taken[kafka_config.events_topic, 0]
        engine.kill()
    assert committed(kafka_config) == taken
    with running(kafka_config, tmp_path / "2.log", **by_hand(folder)) as engine:
        assert engine.stop() == 0
    manifest = read_manifest(max(folder.glob("one-*")))
    newest = {(kafka_config.events_topic, p): at for p, at in manifest.positions.items()} | manifest.catalog_positions
    assert sum(manifest.positions.values()) == 400
    assert committed(kafka_config) == newest
