"""An engine that was told nothing about snapshots has some, and starts again from them."""

from __future__ import annotations

from pathlib import Path

import ousel
import pytest

from deploy.local.broker import EmbeddedBroker
from engine.config import KafkaConfig
from engine.events.topics import ensure_topics
from tests.integration.engines import DEADLINE_S, load, running, until

pytestmark = pytest.mark.integration


def test_an_engine_that_is_killed_starts_again_from_a_snapshot_in_the_default_folder(
    kafka_config: KafkaConfig, tmp_path: Path
) -> None:
    load(kafka_config)
    variables = {"XDG_STATE_HOME": str(tmp_path / "state"), "OUSEL_SNAPSHOT__ENGINE": "one"}
    with (
        running(kafka_config, tmp_path / "first.log", **variables) as engine,
        ousel.Client(engine.address, DEADLINE_S) as client,
    ):
        client.take_snapshot()
    with running(kafka_config, tmp_path / "second.log", **variables) as engine:
        assert f"snapshots are kept in {tmp_path / 'state/ousel/snapshots'}" in engine.log()
        assert engine.log().count("restored at offset") == kafka_config.events_partitions
        with ousel.Client(engine.address, DEADLINE_S) as client:
            assert client.status().events_folded == 200
    # Another log on the same machine is not refused for the sake of the first.
    other = kafka_config.model_copy(update={"events_topic": f"{kafka_config.events_topic}.other"})
    with running(other, tmp_path / "third.log", **variables) as engine:
        assert engine.log().count("no snapshot, 0 records to replay") == kafka_config.events_partitions


def test_a_log_that_was_thrown_away_is_not_continued_by_the_next_one(tmp_path: Path) -> None:
    """The embedded broker gives both the same cluster id, and topics none."""
    variables = {"XDG_STATE_HOME": str(tmp_path / "state"), "OUSEL_SNAPSHOT__ENGINE": "one"}
    for name in ("first", "second"):
        with EmbeddedBroker(tmp_path / name) as broker:
            kafka = KafkaConfig(bootstrap=broker.bootstrap, events_partitions=2)
            ensure_topics(kafka)
            load(kafka)
            with (
                running(kafka, tmp_path / f"{name}.log", **variables) as engine,
                ousel.Client(engine.address, DEADLINE_S) as client,
            ):
                assert engine.log().count("no snapshot, ") == 2
                assert client.status().events_folded == 200
                client.take_snapshot()


def test_a_log_that_was_empty_at_the_start_and_thrown_away_is_no_reason_to_refuse_the_next_one(tmp_path: Path) -> None:
    variables = {"XDG_STATE_HOME": str(tmp_path / "state"), "OUSEL_SNAPSHOT__ENGINE": "one"}
    for name in ("first", "second"):
        with EmbeddedBroker(tmp_path / name) as broker:
            kafka = KafkaConfig(bootstrap=broker.bootstrap, events_partitions=2)
            ensure_topics(kafka)
            with (
                running(kafka, tmp_path / f"{name}.log", **variables) as engine,
                ousel.Client(engine.address, DEADLINE_S) as client,
            ):
                load(kafka)
                until(lambda client=client: client.status().events_folded == 200)
                client.take_snapshot()


def test_a_second_engine_of_a_name_that_nobody_chose_goes_on_without_snapshots(tmp_path: Path) -> None:
    variables = {"XDG_STATE_HOME": str(tmp_path / "state")}
    with EmbeddedBroker(tmp_path / "broker") as broker:
        kafka = KafkaConfig(bootstrap=broker.bootstrap, events_partitions=2)
        ensure_topics(kafka)
        with (
            running(kafka, tmp_path / "first.log", **variables),
            running(kafka, tmp_path / "second.log", **variables) as second,
        ):
            assert "no snapshots are kept, and every start reads the whole log" in second.log()
            assert "snapshot.engine" in second.log()


def test_an_engine_serves_where_the_default_folder_cannot_be_made(kafka_config: KafkaConfig, tmp_path: Path) -> None:
    load(kafka_config)
    (tmp_path / "file").write_text("no folder")
    with running(kafka_config, tmp_path / "engine.log", XDG_STATE_HOME=str(tmp_path / "file")) as engine:
        assert "no snapshots are kept, and every start reads the whole log" in engine.log()
        with (
            ousel.Client(engine.address, DEADLINE_S) as client,
            pytest.raises(ousel.OuselError, match=r"snapshot\.enabled"),
        ):
            client.take_snapshot()
