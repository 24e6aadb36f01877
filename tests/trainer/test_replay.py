from __future__ import annotations

from engine.config import StateConfig
from tests.trainer.planted import KINDS, decoded, replayed
from trainer.replay import Replay


def test_columns_say_what_the_state_folded() -> None:
    batch = decoded(["a", "b", "a", "a"], ["x", "y", "y", "x"], [10, 20, 30, 40], ["1", "7", "1", "2"], [])
    data = replayed(batch).data()
    log = data.log
    assert [data.item_ids[row] for row in log.item] == ["x", "y", "y", "x"]
    assert log.user.tolist() == [0, 1, 0, 0]
    assert log.time_ms.tolist() == [10, 20, 30, 40]
    assert log.session.tolist() == [1, 1, 1, 2]
    assert log.previous.tolist() == [-1, -1, 0, -1]


def test_keeps_the_newest_events_within_its_bound() -> None:
    replay = Replay(StateConfig(), KINDS, max_log_events=10)
    for start in range(0, 95, 7):
        times = list(range(start, min(95, start + 7)))
        replay.fold(decoded(["u"] * len(times), [f"i{t}" for t in times], times, [""] * len(times), []))
        kept = replay.data().log.time_ms.tolist()
        assert kept == list(range(max(0, times[-1] - 9), times[-1] + 1))
        assert len(replay) == len(kept)


def test_a_batch_above_the_bound_leaves_its_newest() -> None:
    replay = Replay(StateConfig(), KINDS, max_log_events=10)
    replay.fold(decoded(["u"] * 100, ["i"] * 100, list(range(100)), [""] * 100, []))
    assert replay.data().log.time_ms.tolist() == list(range(90, 100))


def test_data_is_in_order_of_time_though_partitions_come_one_after_another() -> None:
    replay = Replay(StateConfig(), KINDS, max_log_events=100)
    replay.fold(decoded(["a", "a"], ["x", "y"], [10, 30], ["", ""], []))
    replay.fold(decoded(["b", "b"], ["x", "y"], [20, 30], ["", ""], []))
    log = replay.data().log
    assert log.time_ms.tolist() == [10, 20, 30, 30]
    assert log.user.tolist() == [0, 1, 0, 1]


def test_later_events_leave_data_untouched() -> None:
    replay = Replay(StateConfig(), KINDS, max_log_events=100)
    replay.fold(decoded(["a"], ["x"], [10], [""], []))
    data = replay.data()
    replay.fold(decoded(["b", "c"], ["y", "z"], [20, 30], ["", ""], []))
    assert data.log.item.tolist() == [0]
    assert (data.items, data.users, len(data.content)) == (1, 1, 1)
