import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from engine import metrics
from engine.pipeline import Overloaded
from engine.ranking.query import Cause, Origin, Query, Ranking, Turn
from engine.serving.errors import ShuttingDown, StreamOver
from engine.serving.subscriptions import Subscription, Subscriptions
from engine.state.subjects import subject_key
from tests.engine.serving.fakes import BASIS, Change, ranking

ONE = Query("u1", "", 5)
TWO = Query("u2", "", 5)
OVER = StreamOver()


class Stage:
    """Subscriptions, and an engine's thread that works when told to."""

    def __init__(self, limit: int = 10) -> None:
        self.wakes = 0
        self.all = Subscriptions(limit, self._wake)

    def _wake(self) -> None:
        self.wakes += 1

    def open(self, query: Query = ONE) -> Subscription:
        return self.all.open(query, asyncio.get_running_loop())

    async def opened(self, first: Ranking, query: Query = ONE) -> Subscription:
        """A subscription whose reader has its first list."""
        subscription = self.open(query)
        self.make(first)
        assert await taken(subscription) == (first, Cause.SUBSCRIBED)
        return subscription

    def mark(self, *subjects: str, model: bool = False, catalog: bool = False) -> None:
        self.all.mark(subjects, model=model)
        if catalog:
            self.all.mark_catalog(Change())

    def make(self, made: Ranking) -> None:
        for due in self.all.due(100):
            self.all.deliver(due, replace(made, basis=replace(BASIS, query=due.query)))

    def due(self, limit: int = 100) -> list[tuple[str, Cause]]:
        return [(due.query.user_id, due.cause) for due in self.all.due(limit)]


async def taken(subscription: Subscription) -> tuple[Ranking, Cause]:
    async with asyncio.timeout(5):
        return await subscription.next()


async def nothing(subscription: Subscription) -> bool:
    """Whether a reader would wait now."""
    reader = asyncio.create_task(subscription.next())
    for _ in range(3):  # let calls from other threads and the reader have their turns
        await asyncio.sleep(0)
    waits = not reader.done()
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    return waits


@contextmanager
def replaced(times: int) -> Iterator[None]:
    before = metrics.LISTS_REPLACED._value.get()
    yield
    assert metrics.LISTS_REPLACED._value.get() - before == times


async def test_opening_makes_a_list_due_and_wakes_the_engine():
    stage = Stage()
    stage.open()
    assert stage.wakes == 1
    assert stage.due() == [("u1", Cause.SUBSCRIBED)]
    assert stage.due() == []


async def test_events_concern_the_streams_of_their_subject_only():
    stage = Stage()
    for query in (ONE, TWO, ONE, Query("", "u1", 5)):
        stage.open(query)
    stage.due()
    stage.mark("u1", "unknown")
    assert stage.due() == [("u1", Cause.EVENTS), ("u1", Cause.EVENTS)]
    stage.mark(subject_key("", "u1"))
    assert stage.due() == [("", Cause.EVENTS)]


async def test_model_and_catalog_concern_all():
    stage = Stage()
    stage.open(ONE)
    stage.open(TWO)
    stage.make(ranking("a"))
    stage.mark(model=True)
    assert stage.due() == [("u1", Cause.MODEL), ("u2", Cause.MODEL)]
    stage.mark(catalog=True)
    assert stage.due() == [("u1", Cause.CATALOG), ("u2", Cause.CATALOG)]


async def test_the_most_urgent_come_first_and_the_longest_waiting_first_among_equals():
    stage = Stage()
    for number in range(4):
        stage.open(Query(f"u{number}", "", 5))
    stage.make(ranking("a"))
    stage.mark(catalog=True)
    stage.mark("u3")
    stage.mark("u2")
    stage.open(Query("new", "", 5))
    expected = [
        ("new", Cause.SUBSCRIBED),
        ("u3", Cause.EVENTS),
        ("u2", Cause.EVENTS),
        ("u0", Cause.CATALOG),
        ("u1", Cause.CATALOG),
    ]
    assert stage.due(2) + stage.due(2) + stage.due(2) == expected


async def test_a_catalog_change_is_for_the_streams_whose_lists_it_concerns():
    stage = Stage()
    for query in (ONE, TWO, ONE):
        stage.open(query)
    stage.make(ranking("a"))
    stage.open(Query("u1", "", 7))
    stage.all.mark_catalog(Change("u1"))
    assert stage.due() == [("u1", Cause.SUBSCRIBED), ("u1", Cause.CATALOG), ("u1", Cause.CATALOG)]
    assert stage.due() == []


async def test_streams_that_show_what_may_not_be_listed_any_more_come_before_others_of_the_catalog():
    stage = Stage()
    for number in range(4):
        stage.open(Query(f"u{number}", "", 5))
    stage.make(ranking("a"))
    stage.mark(catalog=True)
    stage.all.mark_catalog(Change("u0", forbids=("u2",)))
    stage.mark("u3")
    assert [due.query.user_id for due in stage.all.due(10, Turn.FORBIDDEN)] == ["u3", "u2"]
    assert [user for user, _ in stage.due()] == ["u0", "u1"]


async def test_streams_that_only_the_catalog_concerns_wait_where_it_has_no_time_and_wake_nobody():
    stage = Stage()
    stage.open(ONE)
    stage.open(TWO)
    stage.make(ranking("a"))
    stage.mark("u2", catalog=True)
    wakes = stage.wakes
    assert [due.query for due in stage.all.due(10, Turn.FORBIDDEN)] == [TWO]
    assert stage.wakes == wakes and metrics.STREAMS_STALE._value.get() == 1
    assert stage.due() == [("u1", Cause.CATALOG)]
    assert metrics.STREAMS_STALE._value.get() == 0


async def test_a_stream_that_ends_or_asks_anew_while_a_change_is_weighed_is_left_alone():
    stage = Stage()
    first, second = stage.open(ONE), stage.open(TWO)
    stage.make(ranking("a"))

    class Meanwhile(Change):
        def concerns(self, bases):
            first.close(OVER)
            second.replace(ONE)
            return super().concerns(bases)

    stage.all.mark_catalog(Meanwhile())
    assert stage.due() == [("u1", Cause.SUBSCRIBED)]


async def test_two_causes_make_one_list_of_the_more_urgent():
    stage = Stage()
    stage.open()
    stage.due()
    stage.mark(model=True)
    stage.mark("u1", catalog=True)
    assert stage.due() == [("u1", Cause.EVENTS)]
    assert stage.due() == []


async def test_wakes_the_engine_again_for_what_a_full_batch_leaves():
    stage = Stage()
    for _ in range(3):
        stage.open()
    wakes = stage.wakes
    assert len(stage.due(2)) == 2
    assert stage.wakes == wakes + 1
    assert len(stage.due(2)) == 1
    assert stage.wakes == wakes + 1


@pytest.mark.parametrize(
    ("changed", "pushed"),
    [
        (ranking("a", "b"), False),
        (ranking("a", "b", title="new"), False),
        (ranking("b", "a"), True),
        (ranking("a"), True),
        (ranking("a", "b", score=0.6), True),
        (ranking("a", "b", origin=Origin.POPULARITY), True),
    ],
)
async def test_events_push_a_list_of_other_items_scores_or_origin(changed, pushed):
    stage = Stage()
    subscription = await stage.opened(ranking("a", "b"))
    stage.mark("u1")
    stage.make(changed)
    if pushed:
        assert await taken(subscription) == (changed, Cause.EVENTS)
    assert await nothing(subscription)


@pytest.mark.parametrize(
    ("changed", "pushed"),
    [
        (ranking("a", "b"), False),
        (ranking("a", "b", score=0.6), False),
        (ranking("a", "b", origin=Origin.POPULARITY), False),
        (ranking("a", "b", title="new"), True),
        (ranking("b", "a"), True),
        (ranking("a", "c"), True),
    ],
)
async def test_the_catalog_pushes_a_list_of_other_items_order_or_titles(changed, pushed):
    stage = Stage()
    subscription = await stage.opened(ranking("a", "b"))
    stage.mark(catalog=True)
    stage.make(changed)
    if pushed:
        assert await taken(subscription) == (changed, Cause.CATALOG)
    assert await nothing(subscription)


async def test_a_model_pushes_even_the_same_list():
    stage = Stage()
    subscription = await stage.opened(ranking("a"))
    stage.mark(model=True)
    stage.make(ranking("a"))
    assert await taken(subscription) == (ranking("a"), Cause.MODEL)


async def test_a_model_pushes_the_same_list_where_events_are_the_more_urgent_cause():
    stage = Stage()
    subscription = await stage.opened(ranking("a"))
    stage.mark("u1", model=True)
    stage.make(ranking("a"))
    assert await taken(subscription) == (ranking("a"), Cause.EVENTS)


async def test_a_catalog_change_beside_events_pushes_new_titles():
    stage = Stage()
    subscription = await stage.opened(ranking("a"))
    stage.mark("u1", catalog=True)
    stage.make(ranking("a", title="new"))
    assert await taken(subscription) == (ranking("a", title="new"), Cause.EVENTS)


async def test_a_slow_reader_gets_the_latest_list_with_the_most_urgent_cause():
    stage = Stage()
    subscription = await stage.opened(ranking("a"))
    with replaced(2):
        stage.mark("u1")
        stage.make(ranking("b"))
        stage.mark(model=True)
        stage.make(ranking("c"))
        stage.mark(catalog=True)
        stage.make(ranking("d"))
    assert await taken(subscription) == (ranking("d"), Cause.EVENTS)
    assert await nothing(subscription)


async def test_a_list_that_changes_back_before_it_is_taken_is_no_news():
    stage = Stage()
    subscription = await stage.opened(ranking("a"))
    with replaced(1):
        stage.mark("u1")
        stage.make(ranking("b"))
        stage.mark("u1")
        stage.make(ranking("a"))
    assert await nothing(subscription)
    stage.mark("u1")
    stage.make(ranking("c"))
    assert await taken(subscription) == (ranking("c"), Cause.EVENTS)


async def test_a_first_list_that_was_not_taken_stays_due_to_the_subscription():
    stage = Stage()
    subscription = stage.open()
    stage.make(ranking("a"))
    stage.mark("u1")
    stage.make(ranking("a"))
    assert await taken(subscription) == (ranking("a"), Cause.SUBSCRIBED)


async def test_a_replaced_query_is_answered_at_once_and_its_old_list_never():
    stage = Stage()
    subscription = stage.open(ONE)
    old = stage.all.due(10)
    subscription.replace(TWO)
    assert stage.wakes == 2
    stage.all.deliver(old[0], ranking("old"))
    assert await nothing(subscription)
    stage.make(ranking("new"))
    assert await taken(subscription) == (ranking("new"), Cause.SUBSCRIBED)


async def test_replacing_drops_a_list_that_was_not_taken():
    stage = Stage()
    subscription = await stage.opened(ranking("a"), ONE)
    stage.mark("u1")
    stage.make(ranking("b"))
    subscription.replace(TWO)
    assert await nothing(subscription)


async def test_a_replaced_query_listens_to_its_new_subject():
    stage = Stage()
    subscription = stage.open(ONE)
    subscription.replace(TWO)
    stage.due()
    stage.mark("u1")
    assert stage.due() == []
    stage.mark("u2")
    assert stage.due() == [("u2", Cause.EVENTS)]


async def test_replacing_supersedes_every_cause_of_before():
    stage = Stage()
    subscription = await stage.opened(ranking("a"))
    stage.mark(model=True)
    subscription.replace(TWO)
    assert stage.due() == [("u2", Cause.SUBSCRIBED)]
    assert stage.due() == []


async def test_a_closed_subscription_is_never_due_and_gets_nothing():
    stage = Stage()
    first, second = stage.open(ONE), stage.open(ONE)
    due = stage.all.due(10)
    stage.mark("u1")
    first.close(OVER)
    first.close(OVER)
    assert stage.all.count == 1
    for each in due:
        stage.all.deliver(each, ranking("a"))
    assert await taken(second) == (ranking("a"), Cause.SUBSCRIBED)
    assert stage.due() == [("u1", Cause.EVENTS)]
    first.replace(TWO)
    stage.mark("u2", model=True)
    assert stage.due() == [("u1", Cause.MODEL)]
    with pytest.raises(StreamOver):
        await taken(first)


async def test_a_waiting_reader_learns_the_first_reason_of_the_end():
    stage = Stage()
    subscription = await stage.opened(ranking("a"))
    reader = asyncio.create_task(subscription.next())
    await asyncio.sleep(0)
    subscription.close(ValueError("first"))
    subscription.close(OVER)
    with pytest.raises(ValueError, match="first"):
        async with asyncio.timeout(5):
            await reader


async def test_refuses_more_than_the_limit_until_one_closes():
    stage = Stage(limit=2)
    first = stage.open()
    stage.open()
    with pytest.raises(Overloaded, match="at most 2 streams"):
        stage.open()
    assert metrics.STREAMS._value.get() == stage.all.count == 2
    first.close(OVER)
    stage.open()


async def test_shutting_ends_waiting_readers_and_opens_no_more():
    stage = Stage()
    reader = asyncio.create_task(stage.open().next())
    await asyncio.sleep(0)
    stage.all.shut()
    with pytest.raises(ShuttingDown):
        async with asyncio.timeout(5):
            await reader
    with pytest.raises(ShuttingDown):
        stage.open()
    assert stage.all.count == 0


async def test_nothing_is_kept_of_closed_subscriptions():
    stage = Stage()
    for query in (ONE, TWO, ONE):
        subscription = stage.open(query)
        subscription.replace(TWO)
        stage.mark("u2", model=True)
        subscription.close(OVER)
    assert not stage.all._all
    assert not stage.all._by_subject
    assert not any(stage.all._queues.values())


def test_delivering_to_a_loop_that_is_closed_is_harmless():
    stage = Stage()
    loop = asyncio.new_event_loop()
    subscription = stage.all.open(ONE, loop)
    loop.close()
    stage.make(ranking("a"))
    subscription.close(OVER)


async def test_every_reader_ends_with_the_last_list_made_by_another_thread():
    """Readers must miss no wake-up: each waits until it has seen the final list."""
    rounds, readers = 300, 8
    subscriptions = Subscriptions(limit=readers, wake=lambda: None)
    loop = asyncio.get_running_loop()
    opened = [subscriptions.open(Query(f"u{n}", "", 5), loop) for n in range(readers)]
    subjects = [subscription.query.subject for subscription in opened]

    def engine() -> None:
        for number in range(rounds):
            subscriptions.mark(subjects, model=False)
            for due in subscriptions.due(readers):
                subscriptions.deliver(due, ranking(str(number)))

    async def read(subscription: Subscription) -> list[int]:
        seen = []
        while not seen or seen[-1] != rounds - 1:
            made, _ = await taken(subscription)
            seen.append(int(made.items[0].item_id))
        return seen

    thread = threading.Thread(target=engine)
    thread.start()
    try:
        results = await asyncio.gather(*map(read, opened))
    finally:
        thread.join()
    for seen in results:
        assert seen == sorted(set(seen))
