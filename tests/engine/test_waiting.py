"""Calls that wait for records, against a plain list of them, and the answers of a broker."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import metrics
from engine.end_check import EndCheck
from engine.ranking.query import Position, Query, Ranking
from engine.waiting import NoSuchRecord, NotFollowing, Overloaded, WaitingCalls

TOPIC = "ousel.events"
QUERY = Query("u1", "", 3)
SOON_S = 30.0


def at(offset: int, partition: int = 0) -> Position:
    return Position(TOPIC, partition, offset)


moves = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 1), st.integers(0, 30)),
    st.tuples(st.just("cancel"), st.just(0), st.integers(0, 200)),
    st.tuples(st.just("fold"), st.integers(0, 1), st.integers(1, 10)),
    st.tuples(st.just("end"), st.integers(0, 1), st.integers(0, 30)),
)


@given(moves=st.lists(moves, max_size=60))
def test_each_call_ends_as_its_record_says_and_the_places_add_up(moves):
    waiting = WaitingCalls(limit=10)
    positions = {(TOPIC, 0): 0, (TOPIC, 1): 0}
    calls: list[tuple[Position, Future[Ranking]]] = []
    expected: dict[Future[Ranking], Position] = {}  # those that wait
    ready: list[Future[Ranking]] = []
    for name, partition, number in moves:
        if name == "add":
            position = at(number, partition)
            if len(expected) >= 10:
                with pytest.raises(Overloaded):
                    waiting.add(QUERY, position)
                continue
            future = waiting.add(QUERY, position)
            calls.append((position, future))
            expected[future] = position
        elif name == "cancel" and calls:
            future = calls[number % len(calls)][1]
            if future in expected:
                assert future.cancel()
                del expected[future]
        elif name == "fold":
            positions[TOPIC, partition] += number
            waiting.release(positions)
            due = [f for f, p in expected.items() if positions[p.partition_key] > p.offset]
            taken = waiting.take_ready(100)
            assert {call.answer for call in taken} == set(due)
            for future in due:
                del expected[future]
            ready += due
        elif name == "end":
            asked = waiting.take_unchecked()
            waiting.refuse_beyond({(TOPIC, partition): number}, asked)
            beyond = {
                call.answer for call in asked if call.after.partition == partition and call.after.offset >= number
            }
            assert {future for future in expected if future.done()} == beyond
            for future in beyond:
                assert isinstance(future.exception(), NoSuchRecord)
                del expected[future]
            waiting.put_back(asked)
        assert len(waiting) == len(expected) == metrics.CALLS_WAITING._value.get()
        assert not any(future.done() for future in [*expected, *ready])


def test_cancelled_calls_leave_nothing_behind_however_many_come():
    waiting = WaitingCalls(limit=2)
    waiting.add(QUERY, at(10**9))
    for offset in range(2000):
        waiting.add(QUERY, at(offset)).cancel()
    (held,) = waiting._held.values()
    assert len(waiting) == 1 and len(held.calls) == 1
    assert len(held.offsets) < 200
    assert len(waiting._unchecked) == 1


def test_calls_whose_record_has_come_keep_their_place_until_their_list_is_made():
    waiting = WaitingCalls(limit=2)
    for _ in range(2):
        waiting.add(QUERY, at(0))
    waiting.release({(TOPIC, 0): 1})
    with pytest.raises(Overloaded):
        waiting.add(QUERY, at(5))
    assert len(waiting.take_ready(2)) == 2
    waiting.add(QUERY, at(5))


def test_a_partition_that_is_not_read_here_ends_the_call_at_once():
    waiting = WaitingCalls(limit=2)
    answer = waiting.add(QUERY, at(7, partition=2))
    waiting.release({(TOPIC, 0): 1})
    with pytest.raises(NotFollowing, match=r"ousel.events\[2\] is not read here"):
        answer.result(0)
    assert len(waiting) == 0


class Broker:
    """Knows the ends of partitions, or does not answer.

    Attributes:
        asked: the partitions of each question.
        silent: questions that are not answered before the next one is.
    """

    def __init__(self, silent: int = 0, **ends: int) -> None:
        self.ends = {(TOPIC, int(name[1:])): end for name, end in ends.items()}
        self.asked: list[set[tuple[str, int]]] = []
        self.silent = silent
        self.closed = threading.Event()

    def ask(self, partitions):
        self.asked.append(set(partitions))
        if len(self.asked) <= self.silent:
            raise ConnectionError("no broker answers")
        return {partition: end for partition, end in self.ends.items() if partition in partitions}

    def close(self) -> None:
        self.closed.set()


@pytest.fixture(autouse=True)
def impatient(monkeypatch) -> None:
    monkeypatch.setattr("engine.end_check._AGAIN_S", 0.001)


def test_a_record_beyond_the_end_that_the_broker_gives_is_refused_and_one_below_it_waited_for():
    waiting, broker = WaitingCalls(limit=5000), Broker(p0=7, p1=3)
    below = [waiting.add(QUERY, at(6, 0)), waiting.add(QUERY, at(2, 1))]
    beyond = [waiting.add(QUERY, at(7 + more, 0)) for more in range(1000)] + [waiting.add(QUERY, at(3, 1))]
    check = EndCheck(waiting, broker)
    try:
        for answer in beyond:
            with pytest.raises(NoSuchRecord, match=r"after.offset must be below the end of ousel.events\[\d\], which"):
                answer.result(SOON_S)
        assert len(waiting) == 2 and not any(answer.done() for answer in below)
        assert broker.asked == [{(TOPIC, 0), (TOPIC, 1)}]  # once for all of them
        with pytest.raises(NoSuchRecord, match="which is 7, got 8"):
            waiting.add(QUERY, at(8)).result(SOON_S)  # and again for one that came later
        assert broker.asked[1:] == [{(TOPIC, 0)}]
    finally:
        check.close()
    assert broker.closed.wait(SOON_S)


def test_a_broker_that_does_not_answer_is_asked_again_and_refuses_nothing_meanwhile():
    waiting, broker = WaitingCalls(limit=10), Broker(silent=3, p0=7)
    lost, kept = waiting.add(QUERY, at(7)), waiting.add(QUERY, at(9, partition=1))
    check = EndCheck(waiting, broker)
    try:
        with pytest.raises(NoSuchRecord):
            lost.result(SOON_S)
        assert not kept.done()  # nobody says where its partition ends
    finally:
        check.close()
    assert len(broker.asked) > 3


def test_the_broker_is_not_asked_for_records_that_are_folded_meanwhile():
    waiting, broker = WaitingCalls(limit=10), Broker(p0=7)
    waiting.add(QUERY, at(6))
    waiting.release({(TOPIC, 0): 7})
    waiting.add(QUERY, at(8)).cancel()
    check = EndCheck(waiting, broker)
    with pytest.raises(NoSuchRecord):
        waiting.add(QUERY, at(7, partition=0)).result(SOON_S)
    check.close()
    assert broker.asked == [{(TOPIC, 0)}]
