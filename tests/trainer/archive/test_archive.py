from __future__ import annotations

import logging
import os
from pathlib import Path
from unittest import mock

import pyarrow.parquet as parquet
import pytest

from engine.config import StateConfig
from engine.events.batch import Record
from engine.events.codec import Decoder
from engine.events.source import Assignment, LogRange
from tests.engine import logs
from tests.engine.logs import TOPIC, Line
from tests.trainer.archive.cases import (
    DAY_MS,
    TODAY,
    Trainer,
    archived,
    counted,
    limits,
    opened,
    present,
    stop,
)
from tests.trainer.planted import KINDS
from trainer.archive.archive import Archive
from trainer.archive.folder import ArchiveError
from trainer.config import TrainerConfig
from trainer.replay import Replay

BEGIN = {0: 0}


def lines(count: int, partition: int = 0, days_ago: int = 0, user: str = "u") -> list[Line]:
    time_ms = (TODAY - days_ago) * DAY_MS
    return [Line(user, "", f"i{at % 5}", time_ms=time_ms + at, partition=partition) for at in range(count)]


def test_files_lie_in_the_day_of_their_events(tmp_path: Path) -> None:
    log = logs.numbered([*lines(3), *lines(2, days_ago=1), *lines(1)])
    trainer = Trainer(opened(tmp_path), log, BEGIN)
    trainer.read()
    stop(trainer.archive)
    assert [name.split("/")[0] for name in counted(tmp_path)] == ["day=2024-10-03", "day=2024-10-04"]
    tables = [parquet.read_table(tmp_path / name, partitioning=None) for name in counted(tmp_path)]
    assert [table["offset"].to_pylist() for table in tables] == [[3, 4], [0, 1, 2, 5]]
    assert parquet.read_metadata(tmp_path / counted(tmp_path)[0]).row_group(0).column(0).compression == "ZSTD"


def test_only_what_the_log_no_longer_has_is_given_back_in_the_order_of_the_log(tmp_path: Path) -> None:
    log = logs.numbered([*lines(3, days_ago=1), *lines(3), *lines(3, days_ago=2), *lines(4, partition=1)])
    trainer = Trainer(opened(tmp_path), log, {}, partitions=2)
    trainer.read([5, 1])
    trainer.archive.flush()
    trainer.read()
    stop(trainer.archive)
    kept = opened(tmp_path)
    ranges = {(TOPIC, 0): LogRange(8, 9), (TOPIC, 1): LogRange(2, 4), ("ousel.items", 0): LogRange(5, 9)}
    with limits(window=3):
        batches = list(kept.replay(Assignment(ranges, {TOPIC: 2})))
    assert max(len(batch.events) for batch in batches) <= 3
    found = [(at, offset) for batch in batches for at, offset in zip(
        batch.events.partition.tolist(), batch.events.offset.tolist(), strict=True)]  # fmt: skip
    assert [offset for at, offset in found if at == 0] == list(range(8))
    assert [offset for at, offset in found if at == 1] == [0, 1]
    for batch in batches:
        events = batch.events
        for (_, partition), position in batch.positions.items():
            assert position == events.offset[events.partition == partition].max() + 1


def test_a_day_has_few_files_however_often_it_is_written(tmp_path: Path) -> None:
    log = logs.numbered(lines(200))
    trainer = Trainer(opened(tmp_path), log, BEGIN)
    with (
        limits(most_rows=64),
        mock.patch.object(os, "fsync"),
        mock.patch.object(parquet, "write_table", wraps=parquet.write_table) as write,
    ):
        for read in range(1, 201):
            trainer.read([1])
            trainer.archive.flush()
            rows = [parquet.read_metadata(tmp_path / name).num_rows for name in counted(tmp_path)]
            small = [count for count in rows if count <= 32]
            assert sum(rows) == read and max(rows) <= 64
            assert len(small) <= 6 and len(rows) - len(small) <= read // 32
            assert present(tmp_path) == counted(tmp_path)
    assert archived(tmp_path) == log
    assert sum(len(call.args[0]) for call in write.call_args_list) <= 7 * 200


def test_what_waits_is_flushed_by_number_and_by_time(tmp_path: Path) -> None:
    trainer = Trainer(opened(tmp_path), logs.numbered(lines(20)), BEGIN)
    with limits(flush_rows=8, flush_s=1000):
        trainer.read([7])
        assert trainer.archive.pending == 7 and not counted(tmp_path)
        trainer.read([1])
        assert trainer.archive.pending == 0 and len(archived(tmp_path)) == 8
    with limits(flush_rows=8, flush_s=0):
        trainer.read([1])
    assert len(archived(tmp_path)) == 9


def test_days_that_are_too_old_go_whole_and_nothing_of_them_is_taken(tmp_path: Path) -> None:
    log = logs.numbered([*lines(2, days_ago=8), *lines(2, days_ago=7), *lines(2), *lines(2, days_ago=9)])
    trainer = Trainer(opened(tmp_path, days=8), log, BEGIN)
    trainer.read()
    assert trainer.archive.pending == 6
    stop(trainer.archive)
    assert [line.offset for line in archived(tmp_path)] == [0, 1, 2, 3, 4, 5]
    later = opened(tmp_path, days=8, today=TODAY + 1)
    later.flush_if_due()
    later.close()
    assert [line.offset for line in archived(tmp_path)] == [2, 3, 4, 5]
    assert not (tmp_path / "day=2024-09-26").exists()


def test_dead_letters_and_repeats_are_not_archived_and_not_waited_for(tmp_path: Path) -> None:
    config = TrainerConfig()
    decoder = Decoder(config.kafka, config.events, 0)
    values = [b'{"user_id": "u", "item_id": "x", "event_id": "1"}', b"{}", b'{"user_id": "u", "item_id": "y"}']
    values += [values[0], b"nonsense"]
    records = [Record(TOPIC, 0, at, TODAY * DAY_MS, None, value) for at, value in enumerate(values)]
    kept, replay = opened(tmp_path), Replay(StateConfig(), KINDS, 100)
    batch = decoder.decode(records)
    assert [rejection.record.offset for rejection in batch.rejected] == [1, 4]
    kept.add(batch, replay.fold(batch))
    stop(kept)
    assert [(line.offset, line.item) for line in archived(tmp_path)] == [(0, "x"), (2, "y")]
    assert opened(tmp_path)._folder.manifest.positions[0].end == 5


def test_a_forgotten_subject_has_left_every_file_when_the_record_is_taken(tmp_path: Path) -> None:
    log = logs.numbered([
        *lines(2, user="ann"), *lines(2, user="bob"), *lines(1, user="ann", days_ago=1),
        Line("bob", target="ann", time_ms=TODAY * DAY_MS), *lines(1, user="ann", partition=1),
        Line("ann", forget=True, time_ms=TODAY * DAY_MS, event_id="f"), *lines(1, user="ann"),
    ])  # fmt: skip
    trainer = Trainer(opened(tmp_path), log, {}, partitions=2)
    trainer.read([5, 1])
    trainer.archive.flush()
    trainer.read([3, 0])  # its last events before, the record and the one after it
    assert present(tmp_path) == counted(tmp_path)
    assert [(line.user, line.partition) for line in archived(tmp_path)] == [("bob", 0)] * 2 + [("ann", 1)]
    stop(trainer.archive)
    offsets = [(line.user, line.offset) for line in archived(tmp_path) if line.partition == 0]
    assert offsets == [("bob", 2), ("bob", 3), ("", 6), ("ann", 7)]


def test_a_purge_that_fails_ends_the_trainer_and_is_done_when_it_starts_again(tmp_path: Path) -> None:
    log = logs.numbered(
        [*lines(3, user="ann"), Line("ann", forget=True, time_ms=TODAY * DAY_MS), *lines(1, user="bob")]
    )
    trainer = Trainer(opened(tmp_path), log, BEGIN)
    trainer.read([3])
    trainer.archive.flush()
    with (
        mock.patch.object(parquet, "write_table", side_effect=OSError("disk full")),
        mock.patch.object(os, "fsync", side_effect=OSError("disk full")),
        pytest.raises(ArchiveError, match=r"who is to be forgotten can't leave .*: disk full"),
    ):
        trainer.read()
    stop(trainer.archive)
    assert [line.user for line in archived(tmp_path)] == ["ann"] * 3
    again = Trainer(opened(tmp_path), log, BEGIN)
    again.read()
    stop(again.archive)
    assert [line.user for line in archived(tmp_path)] == ["", "bob"]


def test_a_forget_record_read_again_costs_no_search_and_leaves_who_came_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget = Line("ann", forget=True, time_ms=TODAY * DAY_MS)
    log = logs.numbered([*lines(1, user="ann"), forget, *lines(2, user="ann")])
    trainer = Trainer(opened(tmp_path), log, BEGIN)
    trainer.read()
    stop(trainer.archive)
    again = Trainer(opened(tmp_path), log, BEGIN)
    monkeypatch.setattr(Archive, "_purge", mock.Mock(side_effect=AssertionError))
    again.read()
    stop(again.archive)
    assert [line.offset for line in archived(tmp_path)] == [1, 2, 3]


def test_a_full_disk_is_waited_for_until_too_much_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = Trainer(opened(tmp_path), logs.numbered(lines(40)), BEGIN)
    with limits(flush_rows=4, most_pending=16, flush_s=1000):
        with mock.patch.object(parquet, "write_table", side_effect=OSError("disk full")):
            trainer.read([4])
            trainer.read([10])
        assert caplog.text.count("can't be written, 4 events wait: disk full") == 1
        trainer.read([2])  # enough to try again
        assert trainer.archive.pending == 0
        with mock.patch.object(parquet, "write_table", side_effect=OSError("disk full")):
            trainer.read([4])
            with pytest.raises(ArchiveError, match="can't be written: disk full"):
                trainer.read([12])
    stop(trainer.archive)
    assert [line.offset for line in archived(tmp_path)] == list(range(32))


def test_a_log_that_ends_before_the_archive_is_another_one(tmp_path: Path) -> None:
    trainer = Trainer(opened(tmp_path), logs.numbered(lines(5)), BEGIN)
    trainer.read()
    stop(trainer.archive)
    with pytest.raises(ArchiveError, match=r"is of another log.*ousel\.events\[0\] ends at offset 4, the archive at 5"):
        Trainer(opened(tmp_path), logs.numbered(lines(4)), BEGIN)


def test_a_log_with_another_record_where_the_archive_ends_is_another_one(tmp_path: Path) -> None:
    log = logs.numbered(lines(5))
    trainer = Trainer(opened(tmp_path), log, BEGIN)
    trainer.read()
    stop(trainer.archive)
    anew = Trainer(opened(tmp_path), logs.numbered(lines(9, days_ago=-1)), BEGIN)
    with pytest.raises(ArchiveError, match=r"the record of ousel\.events\[0\] at offset 4 is not the one archived"):
        anew.read()
    anew.archive.close()
    assert archived(tmp_path) == log


def test_records_that_the_log_deleted_unread_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = logs.numbered(lines(9))
    trainer = Trainer(opened(tmp_path), log, BEGIN)
    trainer.read([4])
    stop(trainer.archive)
    with caplog.at_level(logging.WARNING):
        later = Trainer(opened(tmp_path), log, {0: 7})
    assert "offsets 4 to 6 of ousel.events[0] were deleted from the log before they were read" in caplog.text
    later.read()
    stop(later.archive)
    assert [line.offset for line in archived(tmp_path)] == [0, 1, 2, 3, 7, 8]
