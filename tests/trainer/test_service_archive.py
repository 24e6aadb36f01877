"""The trainer's service as far as it keeps what the log will delete."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from unittest import mock

import pyarrow.parquet as parquet
import pytest
from ousel.v1 import event_pb2

from engine.events.batch import Record
from tests.trainer.archive.cases import archived, counted, limits
from tests.trainer.stage import BEGIN_MS, TOPIC, Stage, records
from trainer.archive.archive import Archive
from trainer.archive.folder import ArchiveError
from trainer.config import TrainerConfig
from trainer.push import Versions
from trainer.train import Trained


def archive_in(path: Path) -> closing[Archive]:
    """An archive of 1970, when the records here come from."""
    return closing(Archive(path, 90, TrainerConfig().events, TOPIC, clock=lambda: 0.0))


def test_what_the_log_has_deleted_since_is_trained_on_from_the_archive(tmp_path: Path) -> None:
    first, second = records(0, 45), records(0, 12, partition=1)
    with archive_in(tmp_path) as archive:
        assert Stage([first[:30], second], [0.2], archive).service.run(once=True)
    # While nobody ran, the log got 15 more of the one partition, and lost the first 20 of it and 11 of the other.
    with archive_in(tmp_path) as archive:
        stage = Stage([first[20:], second[11:]], [0.2], archive)
        assert stage.service.run(once=True)
    assert stage.trained_on == [45 + 12]
    assert [(line.partition, line.offset) for line in archived(tmp_path)] == [
        *((0, at) for at in range(45)),
        *((1, at) for at in range(12)),
    ]


def test_a_changed_assignment_is_archived_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with archive_in(tmp_path) as archive:
        stage = Stage([records(0, 30), records(0, 15, partition=1)], [0.2, 0.3], archive, retrain_events=15)
        source = stage.source
        source.reassign([(TOPIC, 0)])
        stage.versions = [1, 1]
        trained = stage.service._train

        def reassigned(*args: object) -> Trained:
            if not stage.trained_on:
                source.reassign([(TOPIC, 0), (TOPIC, 1)])
            return trained(*args)

        monkeypatch.setattr(stage.service, "_train", reassigned)
        monkeypatch.setattr(source, "poll", lambda timeout_s, poll=source.poll: poll(0))
        stage.service.run()
    assert stage.trained_on == [30, 45]
    assert len(archived(tmp_path)) == 45


def test_a_forget_record_takes_the_users_events_out_of_the_archive(tmp_path: Path) -> None:
    forget = event_pb2.Event(user_id="u", forget=True).SerializeToString()
    with archive_in(tmp_path) as archive, limits(flush_rows=1):
        batches = [records(0, 30), [Record(TOPIC, 0, 30, BEGIN_MS + 1000, b"u", forget)], records(31, 12)]
        assert Stage(batches, [0.2], archive).service.run(once=True)
    assert [line.offset for line in archived(tmp_path)] == list(range(30, 43))
    assert not any(line.user for line in archived(tmp_path)[:1])


def test_an_archive_of_another_log_ends_it_and_stays_as_it_is(tmp_path: Path) -> None:
    with archive_in(tmp_path) as archive:
        assert Stage([records(0, 30)], [0.2], archive).service.run(once=True)
    anew = [record._replace(timestamp_ms=BEGIN_MS + 4000) for record in records(0, 40)]
    with archive_in(tmp_path) as archive:
        stage = Stage([records(0, 20, partition=1), anew], [0.2], archive)
        with pytest.raises(ArchiveError, match="is of another log"):
            stage.service.run(once=True)
    assert stage.trained_on == []
    assert {line.partition for line in archived(tmp_path)} == {0}


def test_what_could_not_be_written_is_written_while_nothing_comes(tmp_path: Path) -> None:
    full = mock.patch.object(
        parquet, "write_table", wraps=parquet.write_table, side_effect=[OSError("full"), *[mock.DEFAULT] * 9]
    )
    seen: list[list[str]] = []
    with archive_in(tmp_path) as archive, limits(flush_rows=1, flush_s=0.0):
        stage = Stage([records(0, 30)], [0.2], archive)
        stage.versions = [1, 1]
        version = stage.service._versions

        def looked(address: str) -> Versions | None:
            seen.append(counted(tmp_path))
            return version(address)

        stage.service._versions = looked
        with full:
            stage.service.run()
    assert not seen[0] and seen[-1]


def test_told_to_stop_amid_the_archive_it_archives_nothing_on_half_of_the_past(tmp_path: Path) -> None:
    with archive_in(tmp_path) as archive:
        assert Stage([records(0, 45)[:30]], [0.2], archive).service.run(once=True)
    with archive_in(tmp_path) as archive, limits(window=10):
        stage = Stage([records(0, 45)[25:]], [0.2], archive)
        replay = archive.replay

        def stopping(assignment):  # type: ignore[no-untyped-def]
            for batch in replay(assignment):
                yield batch
                stage.stop.set()

        with mock.patch.object(archive, "replay", stopping):
            assert stage.service.run()
    assert stage.trained_on == [] and len(archived(tmp_path)) == 30
