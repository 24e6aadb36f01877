import asyncio
from datetime import UTC, datetime

import grpc
import pytest
from ousel import (
    AsyncClient,
    Cause,
    DeadlineExceeded,
    HeldSubject,
    InvalidArgument,
    Origin,
    OuselError,
    Position,
    RolledBack,
    StreamEnded,
    Subject,
    Unavailable,
)


@pytest.fixture
async def client(engine):
    async with AsyncClient(engine.address) as client:
        yield client


async def test_recommend_sends_every_option_and_returns_plain_values(engine, client):
    ranked = await client.recommend(
        "ann", "tab-1", 7, categories=["fruit", "bread"], exclude_item_ids=("kiwi",), exclude_history=True,
        after=Position("ousel.events", 2, 9),
    )  # fmt: skip
    assert (engine.requests[0].after.partition, engine.requests[0].after.offset) == (2, 9)
    query = engine.requests[0].query
    assert (query.user_id, query.session_id, query.k, query.options.exclude_history) == ("ann", "tab-1", 7, True)
    assert (list(query.options.categories), list(query.options.exclude_item_ids)) == (["fruit", "bread"], ["kiwi"])
    assert [item.item_id for item in ranked.items] == ["apple", "bread"]
    assert ranked.origin == Origin.MODEL


async def test_track_sends_the_whole_event_and_returns_its_position(engine, client):
    when = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    tracked = await client.track("apple", "ann", "tab-1", "purchase", 2.5, when, "e-1", {"shop": "north"})
    event = engine.requests[0].event
    assert (event.item_id, event.user_id, event.session_id, event.kind) == ("apple", "ann", "tab-1", "purchase")
    assert (event.value, event.event_id, dict(event.attributes)) == (2.5, "e-1", {"shop": "north"})
    assert event.time.ToDatetime(UTC) == when
    assert (tracked.event_id, tracked.position) == ("e-1", Position("ousel.events", 2, 7))


async def test_relations_are_sent_as_events_of_their_own(engine, client):
    when = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    tracked = await client.relate_users("ann", "bob", "friend", 2.5, when, "e-1", {"shop": "north"})
    assert (tracked.event_id, tracked.position) == ("e-1", Position("ousel.events", 2, 7))
    await client.relate_users("ann", "bob", ends=True)
    await client.relate_item("apple", "Fruit & Co", event_id="e-2")
    await client.relate_item("apple", "Fruit & Co", "has", ends=True)
    social, over, knowledge, gone = (request.event for request in engine.requests)
    assert (social.user_id, social.target_user_id, social.item_id, social.entity_id) == ("ann", "bob", "", "")
    assert (social.kind, social.value, social.time.ToDatetime(UTC), social.ends) == ("friend", 2.5, when, False)
    assert dict(social.attributes) == {"shop": "north"}
    assert (over.target_user_id, over.kind, over.ends, len(over.event_id)) == ("bob", "", True, 32)
    assert (knowledge.item_id, knowledge.entity_id, knowledge.user_id) == ("apple", "Fruit & Co", "")
    assert (knowledge.session_id, knowledge.event_id, knowledge.ends) == ("", "e-2", False)
    assert (gone.kind, gone.ends) == ("has", True)


async def test_status_returns_the_engines_figures(engine, client):
    engine.status.model_metrics["hit_rate@20"] = 0.25
    status = await client.status()
    assert (status.serving, status.model_version, status.model_metrics) == (True, 3, {"hit_rate@20": 0.25})


async def test_forget_and_export_send_who_and_return_plain_values(engine, client):
    engine.forgotten.subjects.add(user_id="ann")
    engine.export.subjects.add(partition=2, sessions=4)
    forgotten, exported = await client.forget_user("ann"), await client.export_user(session_id="tab-1")
    assert [(request.user_id, request.session_id) for request in engine.requests] == [("ann", ""), ("", "tab-1")]
    assert (forgotten.subjects, forgotten.partitions) == ((Subject("ann", ""),), (0, 2))
    assert exported.subjects == (HeldSubject(2, "", (), 4, ()),)


async def test_digest_and_snapshot_return_plain_values_within_a_time_limit_of_their_own(engine, client):
    digest = await client.get_digest()
    assert ([one.digest for one in digest.partitions], digest.catalog_digest) == (["a1", "b2"], "c3")
    assert await client.take_snapshot() == (Position("ousel.events", 2, 7),)
    engine.hang = True
    for call in (client.get_digest, client.take_snapshot):
        with pytest.raises(DeadlineExceeded, match=r"within 0\.1 s"):
            await call(timeout_s=0.1)


async def test_roll_back_says_from_which_version_and_returns_the_one_that_serves(engine, client):
    assert await client.roll_back(3) == RolledBack(version=2, swap_ms=12.0)
    assert [request.expected_version for request in engine.requests] == [3]


async def test_errors_are_the_clients_own(engine, client, closed_port):
    engine.failures.append((grpc.StatusCode.INVALID_ARGUMENT, "query.k must be 1..1000, got 0"))
    with pytest.raises(InvalidArgument, match=r"query\.k must be 1\.\.1000, got 0"):
        await client.recommend("ann", k=0)
    async with AsyncClient(f"127.0.0.1:{closed_port}") as lost:
        with pytest.raises(Unavailable, match=f"127.0.0.1:{closed_port}.*Connection refused"):
            await lost.status()
        with pytest.raises(Unavailable, match=f"127.0.0.1:{closed_port}"):
            await anext(lost.stream("ann"))
        with pytest.raises(Unavailable, match=f"127.0.0.1:{closed_port}"):
            await lost.stream("ann").track("kiwi")
    engine.hang = True
    with pytest.raises(DeadlineExceeded, match=r"within 0\.1 s"):
        await client.track("apple", "ann", timeout_s=0.1)


async def test_unary_calls_are_retried_while_the_engine_is_unavailable(engine, client):
    engine.failures.extend([(grpc.StatusCode.UNAVAILABLE, "catching up")] * 2)
    await client.track("apple", "ann")
    assert len(engine.requests) == 3
    assert engine.requests[0] == engine.requests[2]


def test_a_client_may_be_made_before_its_event_loop(engine):
    client = AsyncClient(engine.address)

    async def use():
        async with client:
            return await client.recommend("ann")

    assert len(asyncio.run(use()).items) == 2


async def test_a_stream_yields_lists_and_takes_events_and_a_new_query(engine, client):
    async with client.stream("ann", k=5, categories=["fruit"]) as updates:
        assert (await anext(updates)).cause == Cause.SUBSCRIBED
        event_id = await updates.track("kiwi", kind="cart")
        update = await anext(updates)
        assert (update.cause, update.list.items[0].item_id) == (Cause.EVENTS, "kiwi")
        await updates.resubscribe(session_id="tab-1")
        assert (await anext(updates)).cause == Cause.SUBSCRIBED
        await updates.track("plum")
        await anext(updates)
    first, event, second, last = engine.stream_messages
    assert (first.subscribe.user_id, first.subscribe.k) == ("ann", 5)
    assert list(first.subscribe.options.categories) == ["fruit"]
    assert (event.event.event_id, event.event.user_id, event.event.kind) == (event_id, "ann", "cart")
    assert second.subscribe.session_id == "tab-1"
    assert (last.event.user_id, last.event.session_id) == ("", "tab-1")


async def test_many_tasks_may_send_on_one_stream(engine, client):
    async with client.stream("ann") as updates:
        await asyncio.gather(*(updates.track(f"item-{number}") for number in range(50)))
        await asyncio.to_thread(engine.wait_for, lambda: len(engine.stream_messages) == 51)
    assert engine.stream_messages[0].HasField("subscribe")
    assert {m.event.item_id for m in engine.stream_messages[1:]} == {f"item-{number}" for number in range(50)}


async def test_an_event_tracked_while_the_query_is_replaced_is_the_new_subscribers(engine, client):
    async with client.stream("ann") as updates:
        await anext(updates)
        await asyncio.gather(updates.resubscribe("bob"), updates.track("kiwi"))
        await asyncio.to_thread(engine.wait_for, lambda: len(engine.stream_messages) == 3)
    subscribe, event = engine.stream_messages[1:]
    assert (subscribe.subscribe.user_id, event.event.user_id) == ("bob", "bob")


async def test_leaving_a_stream_ends_it_at_the_engine(engine, client):
    async with client.stream("ann") as updates:
        await anext(updates)
    await asyncio.to_thread(engine.wait_for, lambda: engine.open_streams == 0)
    assert [update async for update in updates] == []
    with pytest.raises(StreamEnded):
        await updates.track("kiwi")


async def test_close_from_another_task_ends_a_waiting_reader(engine, client):
    updates = client.stream("ann")
    await anext(updates)
    reader = asyncio.create_task(anext(updates, "the end"))
    asyncio.get_running_loop().call_later(0.05, lambda: asyncio.ensure_future(updates.close()))
    assert await asyncio.wait_for(reader, 10) == "the end"


async def test_cancelling_a_waiting_reader_cancels_it(engine, client):
    updates = client.stream("ann")
    await anext(updates)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await anext(updates)
    with pytest.raises(StreamEnded):
        await anext(updates)


async def test_a_stream_that_the_engine_ends_just_ends(engine, client):
    engine.end_streams = True
    updates = client.stream("ann")
    assert len([update async for update in updates]) == 1
    with pytest.raises(StreamEnded):
        await updates.track("kiwi")


async def test_a_stream_that_is_not_to_be_resumed_fails_and_the_client_finds_the_engine_again(engine, restart):
    async with AsyncClient(engine.address, resume_s=0) as client:
        async with client.stream("ann") as updates:
            await anext(updates)
            await asyncio.to_thread(restart, engine)
            with pytest.raises(Unavailable, match=engine.address):
                await anext(updates)
        assert (await client.recommend("ann")).items  # the retries outlast the reconnect


async def test_a_client_that_is_closed_says_so(engine, client):
    before = client.stream("ann")
    await client.status()
    await client.close()
    for ask in (client.status, lambda: client.track("apple", "ann"), lambda: anext(before)):
        with pytest.raises(OuselError, match="the client is closed; make a new one") as failed:
            await ask()
        assert failed.value.code == "CANCELLED"
