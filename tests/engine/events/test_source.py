from __future__ import annotations

import threading

import pytest

from engine.events.batch import Record
from engine.events.source import MemorySource, SourceError

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
