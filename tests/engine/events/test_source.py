from __future__ import annotations

import threading

import pytest

from engine.events.batch import Record
from engine.events.source import Assignment, LogRange, MemorySource, SourceError, start_at_beginning

DEADLINE_S = 20.0


def batch(*offsets: int) -> list[Record]:
    return [Record("t", 0, offset, 0, None, b"v") for offset in offsets]


def test_batches_come_in_order_and_then_nothing() -> None:
    source = MemorySource([batch(0, 1), batch(2)])
    assert source.poll(0) == batch(0, 1)
    assert source.poll(0) == batch(2)
    assert source.poll(0) == ()


def test_lag_and_catching_up_count_returned_records() -> None:
    source = MemorySource([batch(0, 1), batch(2)])
    source.append(batch(3))
    assert (source.lag(), source.caught_up()) == (4, False)
    source.poll(0)
    assert (source.lag(), source.caught_up()) == (2, False)
    source.poll(0)
    # The appended batch came after the start: not needed to have caught up.
    assert (source.lag(), source.caught_up()) == (1, True)


def test_an_empty_log_is_caught_up() -> None:
    assert MemorySource().caught_up()


def test_a_failure_comes_after_the_batches_at_hand() -> None:
    source = MemorySource([batch(0)])
    source.fail(SourceError("gone"))
    assert source.poll(0) == batch(0)
    with pytest.raises(SourceError, match="gone"):
        source.poll(0)


def test_a_stall_holds_batches_back() -> None:
    source = MemorySource([batch(0)])
    source.stall()
    assert source.poll(0) == ()
    assert source.lag() == 1
    source.stall(False)
    assert source.poll(0) == batch(0)


@pytest.mark.parametrize("end", ["append", "wake", "close", "fail"])
def test_a_running_poll_ends_early(end: str) -> None:
    source = MemorySource()
    outcome: list[object] = []

    def poll() -> None:
        try:
            outcome.append(source.poll(10 * DEADLINE_S))
        except SourceError as error:
            outcome.append(str(error))

    poller = threading.Thread(target=poll)
    poller.start()
    if end == "append":
        source.append(batch(5))
    elif end == "fail":
        source.fail(SourceError("gone"))
    else:
        getattr(source, end)()
    poller.join(DEADLINE_S)
    assert outcome == [{"append": batch(5), "fail": "gone"}.get(end, ())]


def test_a_wake_before_the_poll_is_not_lost() -> None:
    source = MemorySource()
    source.wake()
    assert source.poll(10 * DEADLINE_S) == ()


def at(topic: str, partition: int, *offsets: int) -> list[Record]:
    return [Record(topic, partition, offset, 0, None, b"v") for offset in offsets]


def drain(source: MemorySource) -> list[Record]:
    records: list[Record] = []
    while batch := source.poll(0):
        records += batch
    return records


LOG = [[*at("e", 0, 4, 5), *at("e", 1, 0)], at("i", 0, 0), [*at("e", 0, 6), *at("i", 0, 1)]]


def test_the_assignment_says_what_the_log_held() -> None:
    source = MemorySource(LOG)
    expected = {("e", 0): LogRange(4, 7), ("e", 1): LogRange(0, 1), ("i", 0): LogRange(0, 2)}
    assert source.assignment() == Assignment(expected, {"e": 2, "i": 1})
    source.append(at("e", 0, 7))
    assert source.assignment() is source.assignment()
    assert source.assignment() == Assignment(expected, {"e": 2, "i": 1})


def test_it_starts_where_it_is_told_as_often_as_it_is_told() -> None:
    source = MemorySource(LOG)
    source.poll(0)
    source.start({("e", 0): 6, ("i", 0): 2})
    assert drain(source) == [*at("e", 1, 0), *at("e", 0, 6)]
    assert source.caught_up()
    assert start_at_beginning(source) is source.assignment()
    assert not source.caught_up()
    assert drain(source) == [record for batch in LOG for record in batch]


def test_a_position_outside_the_log_is_refused() -> None:
    for offset in (3, 8):
        with pytest.raises(SourceError, match=rf"e\[0\] holds offsets 4 to 7, can't be read from {offset}"):
            MemorySource(LOG).start({("e", 0): offset})


def test_the_catalog_of_the_assignment_comes_first_where_asked() -> None:
    source = MemorySource(LOG, items_topic="i")
    source.append([*at("i", 0, 2), *at("e", 0, 7)])
    source.start({})
    records = drain(source)
    assert [(r.topic, r.offset) for r in records if r.topic == "i"] == [("i", 0), ("i", 1), ("i", 2)]
    assert [r.topic for r in records] == ["i", "i", "e", "e", "e", "e", "i", "e"]


def test_a_new_assignment_drops_what_is_pending_and_waits_for_its_start() -> None:
    source = MemorySource(LOG)
    first = source.assignment()
    source.reassign(None)
    assert source.assignment() is None
    assert source.poll(0) == ()
    source.reassign([("e", 1), ("e", 2)])
    source.start({("e", 1): 9})  # as of the first: nothing to start any more
    source.append(at("e", 1, 1))
    assert source.poll(0) == ()
    assert not source.caught_up()
    second = source.assignment()
    assert second is not first
    assert second == Assignment({("e", 1): LogRange(0, 1), ("e", 2): LogRange(0, 0)}, {"e": 3, "i": 1})
    source.start({})
    source.append([*at("e", 0, 7), *at("e", 2, 0)])
    assert drain(source) == [*at("e", 1, 0, 1), *at("e", 2, 0)]


def test_commits_are_kept() -> None:
    source = MemorySource(LOG)
    source.commit({("e", 0): 5, ("e", 1): 1})
    source.commit({("e", 0): 6})
    assert source.committed == {("e", 0): 6, ("e", 1): 1}
