"""A file is folded as the log with the same events is."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from engine.events.times import earliest_ms
from engine.signals import Stopped
from tests.trainer.files import written
from tests.trainer.planted import planted_log, replayed
from trainer.config import TrainerConfig
from trainer.data.file_error import FileError
from trainer.data.file_log import replay_files
from trainer.replay import TrainingData

STATE = {"history": 16, "neighbors": 4, "content_dim": 16}


def config(**kafka: object) -> TrainerConfig:
    return TrainerConfig.model_validate({"state": STATE, "kafka": kafka})


def data_of(events: Path, items: Path | None = None, settings: TrainerConfig | None = None) -> TrainingData:
    return replay_files(events, items, settings or config(), threading.Event()).data()


def test_files_and_the_log_give_the_same_data(tmp_path: Path) -> None:
    batch = planted_log(600)
    want = replayed(batch).data()
    # Batches of a few records, so that sessions go on from one to the next.
    got = data_of(*written(tmp_path, batch), config(max_poll_records=7))
    for name, column in vars(want.log).items():
        assert torch.equal(getattr(got.log, name), column), name
    assert list(got.item_ids) == list(want.item_ids) and got.users == want.users
    assert torch.equal(got.content, want.content) and bool(want.content.any())
    assert got.deleted.tolist() == want.deleted.tolist()


def test_an_anonymous_session_and_a_user_of_one_name_are_two(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("user_id,session_id,item_id,timestamp\n5,,a,1\n,5,b,2\n5,,c,3\n")
    log = data_of(path).log
    assert sorted(log.user.tolist()) == [0, 0, 1]
    assert log.previous.tolist().count(-1) == 2  # the first of each


def test_without_session_ids_the_gap_cuts_sessions_and_an_order_counts_as_minutes(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("user_id,item_id,timestamp\nu,a,1\nu,b,30\nu,c,61\n")
    log = data_of(path).log
    begin_ms = earliest_ms(1990)
    assert [time_ms - begin_ms for time_ms in log.time_ms.tolist()] == [60_000, 1_800_000, 3_660_000]
    assert log.session.tolist() == [1, 1, 2]  # the gap is half an hour


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ("u,a,2,click\nu,b,1,stare\n", r"e.csv, line 3: kind must be one of .*, got 'stare'"),
        ("u,a,1,\n" + "u" * 257 + ",b,2,\n", r"e.csv, line 3: user_id must have at most 256 bytes"),
    ],
)
def test_a_row_that_breaks_a_rule_of_the_log_is_named(tmp_path: Path, rows: str, line: str) -> None:
    path = tmp_path / "e.csv"
    path.write_text("user_id,item_id,timestamp,kind\n" + rows)
    with pytest.raises(FileError, match=line):
        data_of(path)


def test_an_item_that_breaks_a_rule_of_the_log_is_named(tmp_path: Path) -> None:
    events, items = written(tmp_path, planted_log(20))
    items.write_text("item_id,title\na,fine\nb," + "t" * 1025 + "\n")
    with pytest.raises(FileError, match=r"items.csv, line 3: title must have at most 1024 characters, got 1025"):
        data_of(events, items)


def test_a_stop_ends_it(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        replay_files(*written(tmp_path, planted_log(20)), config(), stop)
