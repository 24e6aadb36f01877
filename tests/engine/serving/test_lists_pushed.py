import asyncio
import threading

import pytest

from engine.ranking.query import Cause, Origin, Query
from engine.serving.subscriptions import Subscription, Subscriptions
from tests.engine.serving.fakes import ranking
from tests.engine.serving.stage import ONE, TWO, Stage, nothing, replaced, taken


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
