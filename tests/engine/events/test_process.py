from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial

import psutil
import pytest

from engine.events.batch import Flaw, Record
from engine.events.process import ProcessSource
from engine.events.process_child import Polled
from engine.events.source import EventSource, MemorySource, SourceError, start_at_beginning
from tests.engine.events.sources import TOPIC, CuedSource, batch, broken, light, refusing

DEADLINE_S = 20.0
Open = Callable[..., ProcessSource]
_strangers: set[psutil.Process] = set()


@pytest.fixture(autouse=True)
def strangers() -> None:
    """Notes the processes that other tests of this worker keep, such as a broker for all of them."""
    _strangers.clear()
    _strangers.update(psutil.Process().children())


@pytest.fixture
def opened() -> Iterator[Open]:
    sources: list[ProcessSource] = []

    def make(factory: Callable[[], EventSource], **settings: int) -> ProcessSource:
        sources.append(ProcessSource(factory, **settings))
        return sources[-1]

    yield make
    for source in sources:
        source.close()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    tick = threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        tick.wait(0.005)


def read(source: EventSource, count: int) -> list[Record]:
    records: list[Record] = []
    deadline = time.monotonic() + DEADLINE_S
    while len(records) < count:
        assert time.monotonic() < deadline
        records += source.poll(DEADLINE_S)
    return records


def cue(source: ProcessSource, what: str, number: int = 0, value: int = 1) -> None:
    """Has the child's source do something, and waits until it has."""
    source.commit({(what, number): value})
    until(lambda: source.lag_by_partition().get((what, number)) == value)


def children() -> list[psutil.Process]:
    """The processes that this test has started."""
    return [process for process in psutil.Process().children() if process not in _strangers]


def child() -> psutil.Process:
    (process,) = children()
    return process


def numbered(*sizes: int) -> list[Sequence[Record]]:
    offsets = iter(range(sum(sizes)))
    return [batch(*[next(offsets) for _ in range(size)]) for size in sizes]


def test_records_come_whole_and_in_order(opened: Open) -> None:
    batches = [*numbered(3, 1, 2), [Record("u", 7, 1, -1, None, None), Record(TOPIC, 1, 0, 2**60, b"", b"")]]
    source = opened(partial(MemorySource, batches))
    assert read(source, 8) == [record for part in batches for record in part]
    assert source.poll(0) == ()


def test_batches_that_wait_are_returned_as_one_up_to_the_limit(opened: Open) -> None:
    source = opened(partial(CuedSource, numbered(2, 2, 2, 9)), max_poll_records=5)
    until(lambda: source.lag_by_partition()["polled", 0] == 4)
    assert [len(source.poll(0)) for _ in range(3)] == [4, 2, 9]


def test_once_caught_up_many_catalog_records_come_a_few_at_a_time(opened: Open, monkeypatch) -> None:
    monkeypatch.setattr("engine.events.process._LIVE_ITEMS", 4)
    items = [Record("items", 0, offset, 0, b"k%d" % offset, bytes(offset)) for offset in range(30)]
    before, mixed = batch(0, 1, 2), [*items[10:15], *batch(3, 4, 5, 6, 7, 8), *items[15:24]]
    polled = [[*items[:10], *before], mixed, items[24:27], items[27:]]
    source = opened(partial(CuedSource, polled), max_poll_records=20, items_topic="items")
    until(lambda: source.lag_by_partition()["polled", 0] == 4)
    # To catch up, all that there is: the more at once, the sooner.
    source._caught_up = False
    source._queue[0].caught_up = True
    assert list(source.poll(0)) == polled[0]
    parts = []
    while part := source.poll(0):
        parts.append(list(part))
        left = source.lag_by_partition()
        assert left["items", 0] + sum(record.topic == "items" for part in parts for record in part) == 20
    assert [record for part in parts for record in part] == [record for part in polled[1:] for record in part]
    counts = [sum(record.topic == "items" for record in part) for part in parts]
    assert max(counts) == 4 and len(parts) == 5, "as many as may be, beside any number of events"


def test_the_child_polls_ahead_as_far_as_there_is_room(opened: Open) -> None:
    source = opened(partial(CuedSource, numbered(*[1] * 20)), queue_batches=3, max_poll_records=1)
    for taken in range(5):
        until(lambda taken=taken: source.lag_by_partition()["polled", 0] == taken + 3)
        for value in (1, 2):  # two rounds through the child's loop, which would poll once more if it could
            cue(source, "pass", taken, value)
        assert source.lag_by_partition()["polled", 0] == taken + 3
        assert len(source.poll(0)) == 1


def test_the_child_polls_ahead_as_far_as_there_is_room_for_bytes(opened: Open) -> None:
    large = [[Record(TOPIC, 0, offset, 0, None, bytes(1000))] for offset in range(20)]
    source = opened(partial(CuedSource, large), queue_batches=2, max_poll_records=4096, max_poll_bytes=1500)
    for taken in range(5):
        # Room for 3,000 bytes: three records, and the last batch may exceed it by one.
        until(lambda taken=taken: source.lag_by_partition()["polled", 0] == taken + 3)
        for value in (1, 2):
            cue(source, "pass", taken, value)
        assert source.lag_by_partition()["polled", 0] == taken + 3
        assert len(source.poll(0)) == 1  # two of them exceed a full batch


def test_what_can_not_be_read_comes_through_whole(opened: Open) -> None:
    records = [Record(TOPIC, 0, 3, -1, b"k", None, Flaw(7, 5, "offsets 3 to 7 can't be read")), *batch(8)]
    source = opened(partial(CuedSource, [records]))
    until(lambda: source.lag_by_partition()["polled", 0] == 1)
    found = source.poll(0)
    assert list(found) == records
    assert found.positions() == {(TOPIC, 0): 9}


def test_where_the_log_is_stable_and_who_is_held_come_through(opened: Open) -> None:
    source = opened(partial(CuedSource, [batch(0, 1), batch(4, partition=1)]))
    until(source.stable_offsets)
    assert source.stable_offsets() == {(TOPIC, 0): 2, (TOPIC, 1): 5}
    assert source.held() == {}
    cue(source, "hold", 1)
    until(source.held)
    assert source.held() == {(TOPIC, 1): "as the test wants"}


def test_lag_and_catching_up_count_returned_records(opened: Open) -> None:
    source = opened(partial(MemorySource, numbered(2, 1)), max_poll_records=2)
    until(lambda: len(source._queue) == 2)
    assert (source.lag(), source.caught_up()) == (3, False)
    assert source.lag_by_partition() == {(TOPIC, 0): 3}
    source.poll(0)
    assert (source.lag(), source.caught_up()) == (1, False)
    source.poll(0)
    assert (source.lag(), source.caught_up()) == (0, True)


def test_an_empty_log_is_caught_up(opened: Open) -> None:
    assert opened(MemorySource).caught_up()


def test_a_commit_reaches_the_source(opened: Open) -> None:
    source = opened(CuedSource)
    source.commit({(TOPIC, 3): 17})
    until(lambda: source.lag_by_partition().get((TOPIC, 3)) == 17)


def test_an_assignment_is_one_object_until_it_changes(opened: Open) -> None:
    source = opened(partial(CuedSource, [batch(0, 1), batch(4, partition=1)]))
    until(source.assignment)
    first = source.assignment()
    assert first is not None and {key: (log.begin, log.end) for key, log in first.partitions.items()} == {
        (TOPIC, 0): (0, 2),
        (TOPIC, 1): (4, 5),
    }
    assert first.totals == {TOPIC: 2}
    cue(source, "reassign", 1)
    until(lambda: source.assignment() is not first)
    second = source.assignment()
    assert second is not None and list(second.partitions) == [(TOPIC, 1)]
    assert source.assignment() is second
    cue(source, "reassign", 0, 0)
    until(lambda: source.assignment() is None)


def test_after_a_new_assignment_nothing_comes_that_was_read_before_the_start(opened: Open) -> None:
    source = opened(partial(CuedSource, [batch(0, 1), batch(0, 1, 2, partition=1)]))
    until(lambda: source.lag_by_partition()["polled", 0] == 2)
    cue(source, "reassign", 1)
    until(lambda: source.assignment() and len(source.assignment().partitions) == 1)
    assert source.poll(0) == ()
    cue(source, "append", 1, 3)
    assert source.poll(0) == ()
    source.start({(TOPIC, 1): 1})
    assert [record.offset for record in read(source, 3)] == [1, 2, 3]
    source.start({(TOPIC, 1): 2})
    assert [record.offset for record in read(source, 2)] == [2, 3]
    assert source.poll(0) == ()


def test_a_start_for_an_assignment_that_has_changed_is_void(opened: Open) -> None:
    source = opened(partial(CuedSource, [batch(0, 1), batch(0, 1, partition=1)]))
    until(source.assignment)
    cue(source, "reassign", 1)
    source.start({(TOPIC, 0): 0})  # for the first: the second has not been asked for yet
    cue(source, "pass")
    assert source.poll(0) == ()
    assert start_at_beginning(source)
    assert [(record.partition, record.offset) for record in read(source, 2)] == [(1, 0), (1, 1)]


class Overtaken(ProcessSource):
    """Is started elsewhere just before the first records of the child are taken in."""

    overtaken = False

    def _take(self, message: object) -> None:
        if isinstance(message, Polled) and not self.overtaken:
            self.overtaken = True
            assert self.assignment() is not None
            self.start({(TOPIC, 0): 2})
        super()._take(message)


def test_records_that_were_on_their_way_at_a_start_are_dropped_and_leave_room_for_others() -> None:
    with closing(Overtaken(partial(CuedSource, numbered(2, 2)), queue_batches=1)) as source:
        assert [record.offset for record in read(source, 2)] == [2, 3]
        cue(source, "append", 0, 4)
        assert read(source, 1) == batch(4)


@pytest.mark.parametrize("end", ["append", "wake", "close", "fail", "reassign"])
def test_a_running_poll_ends_early(opened: Open, end: str) -> None:
    source = opened(CuedSource)
    until(source.assignment)
    source.poll(0)  # the first assignment ends one, too
    outcome: list[object] = []

    def poll() -> None:
        try:
            outcome.append(source.poll(10 * DEADLINE_S))
        except SourceError as error:
            outcome.append(str(error))

    poller = threading.Thread(target=poll)
    poller.start()
    if end in ("wake", "close"):
        getattr(source, end)()
    else:
        source.commit({(end, 0): 1})
    poller.join(DEADLINE_S)
    assert outcome == [{"append": batch(1), "fail": "check the weather"}.get(end, ())]


def test_a_wake_before_the_poll_is_not_lost(opened: Open) -> None:
    source = opened(MemorySource)
    source.poll(0)
    source.wake()
    assert source.poll(10 * DEADLINE_S) == ()


def test_a_failure_comes_after_the_batches_at_hand(opened: Open) -> None:
    source = opened(partial(CuedSource, numbered(1)))
    until(lambda: source.lag_by_partition()["polled", 0] == 1)
    cue(source, "fail")
    until(lambda: source._failure)
    assert read(source, 1) == batch(0)
    for _ in range(2):
        with pytest.raises(SourceError, match=r"^check the weather$"):
            source.poll(DEADLINE_S)


def test_an_unforeseen_failure_is_a_source_error(opened: Open) -> None:
    source = opened(CuedSource)
    source.commit({("raise", 0): 1})
    with pytest.raises(SourceError, match="not foreseen"):
        read(source, 1)


@pytest.mark.parametrize(("factory", "said"), [(refusing, "^nobody there$"), (broken, "not foreseen")])
def test_a_source_that_can_not_be_made_fails_at_once(factory: Callable[[], EventSource], said: str) -> None:
    with pytest.raises(SourceError, match=said):
        ProcessSource(factory)
    assert children() == []


def test_the_child_imports_nothing_heavy(opened: Open) -> None:
    assert opened(light).caught_up()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (7, "ended by itself with exit code 7$"),
        (signal.SIGKILL, "was killed by SIGKILL, as the kernel does where memory runs out: .*kafka.queue_batches"),
        (signal.SIGSEGV, "was killed by SIGSEGV$"),
        (signal.SIGRTMIN + 1, f"was killed by signal {signal.SIGRTMIN + 1}$"),
    ],
)
def test_a_child_that_ends_before_its_time_is_an_error_that_says_how(opened: Open, how: int, words: str) -> None:
    source = opened(CuedSource)
    if how == 7:
        source.commit({("exit", 0): how})
    else:
        child().send_signal(how)
    with pytest.raises(SourceError, match=words):
        read(source, 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_child_leaves_signals_to_its_parent(opened: Open, number: signal.Signals) -> None:
    source = opened(CuedSource)
    child().send_signal(number)
    cue(source, "append", 0, 3)
    assert read(source, 1) == batch(3)
    assert os.getpgid(child().pid) != os.getpgid(0)  # nor does Ctrl-C reach it


def test_close_leaves_nothing_behind() -> None:
    descriptors, threads = psutil.Process().num_fds(), set(threading.enumerate())
    source = ProcessSource(partial(CuedSource, numbered(*[1] * 20)), queue_batches=2)
    source.close()
    source.close()
    assert children() == []
    assert psutil.Process().num_fds() == descriptors
    assert set(threading.enumerate()) <= threads  # A timer of an earlier test may have ended.


def test_the_child_ends_with_a_parent_that_is_killed() -> None:
    program = (
        "from engine.events.process import ProcessSource\n"
        "from tests.engine.events.sources import CuedSource\n"
        "source = ProcessSource(CuedSource)\n"
        "print(source._child.pid, flush=True)\n"
        "source.poll(1000)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        parent.kill()
        parent.wait()

    def gone() -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    until(gone)


def test_a_child_that_is_frozen_is_a_log_that_does_not_answer(opened: Open) -> None:
    source = opened(MemorySource)
    until(lambda: source.health().age_s < 0.5)  # a word of the child, not long ago
    child().suspend()
    try:
        until(lambda: source.health().age_s > 2.5)  # longer than from one word to the next
    finally:
        child().resume()
    until(lambda: source.health().age_s < 0.5)


def test_what_the_source_says_of_the_log_is_passed_on(opened: Open) -> None:
    source = opened(CuedSource)
    source.commit({("age", 0): 70})
    until(lambda: 70 <= source.health().age_s < 72)
    assert source.health().problems == 1
