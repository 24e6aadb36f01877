import asyncio

import pytest

from engine import metrics
from engine.pipeline import Overloaded
from engine.ranking.query import Cause, Query, Turn
from engine.serving.errors import ShuttingDown, StreamOver
from engine.state.subjects import subject_key
from tests.engine.serving.fakes import Change, ranking
from tests.engine.serving.stage import ONE, OVER, TWO, Stage, taken


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


async def test_streams_that_end_or_ask_anew_leave_nothing_of_the_lists_that_they_had():
    stage = Stage()
    for turn in range(20):
        streams = [stage.open(ONE), stage.open(TWO)]
        stage.make(ranking("a"))
        streams[0].replace(Query(f"u{turn}", "", 5))
        streams[1].close(OVER)
        stage.all.mark_catalog(Change())
        streams[0].close(OVER)
    stage.all.mark_catalog(Change())
    assert len(stage.all._bases) == len(stage.all._based) == len(stage.all._left) == 0
    assert sum(len(table) for table in stage.all._bases.tables()) == 2


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
