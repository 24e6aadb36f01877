import asyncio

import grpc
import pytest
from ousel.v1 import recommender_service_pb2
from ousel.v1.recommender_service_pb2 import (
    Query,
    QueryOptions,
    RecommendRequest,
    StreamRecommendationsRequest,
    StreamRecommendationsResponse,
)

from engine import metrics
from engine.pipeline import Overloaded
from engine.ranking import query as ranking_query
from engine.ranking.query import Cause, Origin
from engine.serving.server import Server
from tests.engine.serving.fakes import FakeEngine, Served, Stream, failure, our_tasks, ranking, until

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def request(**fields: object) -> RecommendRequest:
    return RecommendRequest(query=Query(**{"user_id": "u1", "k": 5, **fields}))


# -- Recommend -------------------------------------------------------------------------------------------------------


async def test_answers_with_the_engines_list(served: Served):
    made = ranking("a", "b", origin=Origin.POPULARITY)
    served.engine.lists = lambda query: made
    options = QueryOptions(exclude_history=True, categories=["dairy"], exclude_item_ids=["x"])
    answer = (await served.recommender.Recommend(request(session_id="s1", options=options))).list
    assert served.engine.asked == [ranking_query.Query("u1", "s1", 5, True, ("dairy",), ("x",))]
    assert [item.item_id for item in answer.items] == ["a", "b"]
    assert {(item.title, item.score) for item in answer.items} == {("title", 0.5)}
    sources = [recommender_service_pb2.SOURCE_INDEX, recommender_service_pb2.SOURCE_POPULAR]
    assert [list(item.sources) for item in answer.items] == [sources, sources]
    assert answer.origin == recommender_service_pb2.ORIGIN_POPULARITY
    assert (answer.known, answer.model_version) == (True, 3)
    assert [(p.topic, p.partition, p.offset) for p in answer.reflects] == [("ousel.events", 1, 41)]


@pytest.mark.parametrize("name", ["Origin", "Source", "Cause"])
def test_the_engines_numbers_are_those_of_the_protocol(name):
    ours = {member.name: member.value for member in getattr(ranking_query, name)}
    theirs = getattr(recommender_service_pb2, name)
    assert ours == {key.removeprefix(f"{name.upper()}_"): value for key, value in theirs.items() if value}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"k": -1}, "k must be within 1..1000, or 0 for 10, got -1"),
        ({"k": 1001}, "k must be within 1..1000, or 0 for 10, got 1001"),
        ({"user_id": ""}, "user_id or session_id must be set, got neither"),
        ({"user_id": "x" * 33}, f"user_id must have at most 32 bytes in UTF-8, got 33: {'x' * 33!r}"),
        ({"session_id": "a\tb"}, "session_id must not have control characters, got 'a\\tb'"),
    ],
)
async def test_refuses_a_query_that_breaks_a_rule(served: Served, fields, message):
    assert await failure(served.recommender.Recommend(request(**fields))) == (INVALID, message)
    assert served.engine.asked == []


# -- RecommendBatch --------------------------------------------------------------------------------------------------


async def test_refuses_an_id_that_is_not_utf_8(served: Served):
    raw = served.channel.unary_unary("/ousel.v1.RecommenderService/Recommend")
    code, message = await failure(raw(b"\x0a\x03\x0a\x01\xff"))
    assert code is INVALID
    assert "UTF-8" in message


async def test_says_when_to_come_back_where_too_many_calls_wait(served: Served):
    served.engine.refuse_asking = Overloaded("at most 5 calls may wait, try again later")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.recommender.Recommend(request())
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.details() == "at most 5 calls may wait, try again later"
    assert int(dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"]) > 0


async def test_takes_the_call_back_when_its_deadline_passes(served: Served):
    served.engine.hold = True
    code, _ = await failure(served.recommender.Recommend(request(), timeout=0.3))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: served.engine.asked_futures[0].cancelled(), "the engine's future is cancelled")


async def test_takes_the_call_back_when_its_client_leaves(served: Served):
    served.engine.hold = True
    call = served.recommender.Recommend(request())
    await until(lambda: bool(served.engine.asked_futures), "the engine is asked")
    assert metrics.QUERIES_WAITING._value.get() == 1
    call.cancel()
    await until(lambda: served.engine.asked_futures[0].cancelled(), "the engine's future is cancelled")
    await until(lambda: metrics.QUERIES_WAITING._value.get() == 0, "nobody waits")


# -- StreamRecommendations: lists ------------------------------------------------------------------------------------


async def test_a_stream_gets_a_list_at_once_and_then_one_per_change(served: Served):
    stream = Stream(served)
    await stream.subscribe()
    assert await stream.list() == (["a", "b"], Cause.SUBSCRIBED)
    served.engine.change("u1")  # the same list: nothing is sent
    served.engine.lists = lambda query: ranking("c")
    served.engine.change("u1")
    assert await stream.list() == (["c"], Cause.EVENTS)
    served.engine.change("u2")
    served.engine.change(model=True)
    assert await stream.list() == (["c"], Cause.MODEL)
    served.engine.lists = lambda query: ranking("c", title="new")
    served.engine.change(catalog=True)
    assert await stream.list() == (["c"], Cause.CATALOG)


async def test_a_later_subscribe_replaces_the_query(served: Served):
    served.engine.lists = lambda query: ranking(f"{query.user_id}/{query.k}")
    stream = Stream(served)
    await stream.subscribe()
    assert await stream.list() == (["u1/5"], Cause.SUBSCRIBED)
    await stream.subscribe(user_id="u2", k=7)
    assert await stream.list() == (["u2/7"], Cause.SUBSCRIBED)
    assert served.subscriptions.count == 1


async def test_a_client_that_has_no_more_to_say_still_gets_lists(served: Served):
    stream = Stream(served)
    await stream.subscribe()
    await stream.call.done_writing()
    assert await stream.list() == (["a", "b"], Cause.SUBSCRIBED)
    served.engine.change(model=True)
    assert await stream.list() == (["a", "b"], Cause.MODEL)


async def test_a_reader_that_stops_reading_gets_the_latest_list_once_it_goes_on(served: Served):
    # Lists this large fill the flow-control window after a few, and the writer stands still.
    def large(number: int) -> object:
        return lambda query: ranking(*(f"{number}-{i}" for i in range(20)), title="x" * 10_000)

    stream = Stream(served)
    served.engine.lists = large(0)
    await stream.subscribe()
    await stream.list()
    for number in range(1, 200):
        served.engine.lists = large(number)
        served.engine.change("u1")
        await asyncio.sleep(0)
    received = []
    while not received or received[-1] != 199:
        items, _ = await stream.list()
        received.append(int(items[0].split("-")[0]))
    assert received == sorted(set(received))
    assert len(received) < 199


# -- StreamRecommendations: events -----------------------------------------------------------------------------------


async def test_events_on_a_stream_are_written_as_the_subscribers(served: Served):
    stream = Stream(served)
    await stream.subscribe(session_id="s1")
    await stream.send(item_id="i1")
    await stream.send(item_id="i2", user_id="u1", session_id="s2", event_id="e2", kind="purchase", value=3)
    await until(lambda: len(served.log.events) == 2, "both events are in the log")
    first, second = served.log.events
    assert (first.user_id, first.session_id, first.item_id) == ("u1", "s1", "i1")
    assert len(first.event_id) == 32
    assert first.HasField("time")
    assert (second.user_id, second.session_id, second.item_id) == ("u1", "s2", "i2")
    assert (second.event_id, second.kind, second.value) == ("e2", "purchase", 3)


async def test_a_stream_for_an_anonymous_session_writes_for_no_user_before_it_has_signed_in(served: Served):
    stream = Stream(served)
    await stream.subscribe(user_id="", session_id="s1")
    await stream.send(item_id="i1")
    await stream.subscribe(user_id="u1", session_id="s1")
    await stream.send(item_id="i2")
    await until(lambda: len(served.log.events) == 2, "both events are in the log")
    assert [(event.user_id, event.session_id) for event in served.log.events] == [("", "s1"), ("u1", "s1")]
    for user, session in (("u2", ""), ("u1", "s1")):
        other = Stream(served)
        await other.subscribe(user_id="", session_id="s1")
        await other.send(item_id="i3", user_id=user, session_id=session)
        code, message = await other.end()
        assert code is INVALID
        assert "to sign in, subscribe again on this stream with user_id and session_id" in message
    assert len(served.log.events) == 2


async def test_events_wait_for_the_log_one_by_one(served: Served):
    served.log.hold = True
    stream = Stream(served)
    await stream.subscribe()
    await stream.send(item_id="i1")
    await stream.send(item_id="i2")
    await until(lambda: len(served.log.events) == 1, "the first event is sent")
    served.engine.change(model=True)  # lists go on meanwhile
    assert (await stream.list())[1] is Cause.SUBSCRIBED
    assert len(served.log.events) == 1
    served.log.acknowledgements[0].set_result(None)
    await until(lambda: len(served.log.events) == 2, "the second event is sent")


# -- StreamRecommendations: ends -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (StreamRecommendationsRequest(), "the first message must be subscribe, got neither subscribe nor event"),
        (StreamRecommendationsRequest(event={"item_id": "i"}), "the first message must be subscribe, got event"),
        (
            StreamRecommendationsRequest(subscribe=Query(user_id="u", k=-2)),
            "k must be within 1..1000, or 0 for 10, got -2",
        ),
        (StreamRecommendationsRequest(subscribe=Query(k=5)), "user_id or session_id must be set, got neither"),
    ],
)
async def test_a_stream_that_starts_wrong_is_refused(served: Served, first, message):
    stream = Stream(served)
    await stream.call.write(first)
    assert await stream.end() == (INVALID, message)
    assert served.subscriptions.count == 0


async def test_a_stream_without_any_message_is_refused(served: Served):
    stream = Stream(served)
    await stream.call.done_writing()
    assert await stream.end() == (INVALID, "the first message must be subscribe, got nothing")


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({}, "event.item_id must not be empty, got ''"),
        ({"item_id": "i", "user_id": "u2"}, "event.user_id must be empty or the subscribed 'u1', got 'u2'"),
        ({"item_id": "x" * 33}, f"event.item_id must have at most 32 bytes in UTF-8, got 33: {'x' * 33!r}"),
    ],
)
async def test_an_event_that_breaks_a_rule_ends_the_stream(served: Served, event, message):
    stream = Stream(served)
    await stream.subscribe()
    await stream.send(**event)
    assert await stream.end() == (INVALID, message)
    await until(lambda: served.subscriptions.count == 0 and not our_tasks(), "all is cleaned up")
    assert served.log.events == []


async def test_an_error_beside_a_list_on_its_way_reaches_the_client(served: Served):
    # Both at once: the first list is being written while the wrong event is read.
    served.engine.lists = lambda query: ranking(*map(str, range(20)), title="x" * 10_000)
    for _ in range(50):
        stream = Stream(served)
        await stream.subscribe()
        await stream.send(item_id="")
        assert await stream.end() == (INVALID, "event.item_id must not be empty, got ''")


async def test_a_later_message_that_is_wrong_ends_the_stream(served: Served):
    for wrong, message in (
        (StreamRecommendationsRequest(), "a message must be subscribe or event, got neither"),
        (
            StreamRecommendationsRequest(subscribe=Query(user_id="u", k=2000)),
            "k must be within 1..1000, or 0 for 10, got 2000",
        ),
    ):
        stream = Stream(served)
        await stream.subscribe()
        await stream.call.write(wrong)
        assert await stream.end() == (INVALID, message)


async def test_a_message_that_is_not_utf_8_ends_the_stream(served: Served):
    call = served.channel.stream_stream(
        "/ousel.v1.RecommenderService/StreamRecommendations",
        response_deserializer=StreamRecommendationsResponse.FromString,
    )()
    await call.write(StreamRecommendationsRequest(subscribe=Query(user_id="u1", k=5)).SerializeToString())
    assert (await call.read()).list.items
    await call.write(b"\x12\x03\x0a\x01\xff")
    assert await call.code() is INVALID
    assert "UTF-8" in await call.details()


async def test_a_log_that_fails_ends_the_stream(served: Served):
    served.log.failure = RuntimeError("no broker")
    stream = Stream(served)
    await stream.subscribe()
    await stream.send(item_id="i")
    code, message = await stream.end()
    assert code is grpc.StatusCode.UNAVAILABLE
    assert message == "the event could not be written to Kafka at 127.0.0.1:9092: no broker"


async def test_a_stream_beyond_the_limit_is_refused(config):
    engine = FakeEngine()
    engine.subscriptions._limit = 1
    server = Server(config, engine, engine.subscriptions, None)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        served = Served(server, engine, None, channel)
        first, second = Stream(served), Stream(served)
        await first.subscribe()
        await first.list()
        await second.subscribe()
        expected = (grpc.StatusCode.RESOURCE_EXHAUSTED, "at most 1 streams may be open, try again later")
        assert await second.end() == expected
    await server.stop(0)


async def test_nothing_is_left_of_streams_that_are_dropped(served: Served, caplog):
    streams = [Stream(served) for _ in range(50)]
    for number, stream in enumerate(streams):
        await stream.subscribe(user_id=f"u{number}")
    for stream in streams:
        await stream.list()
    assert served.subscriptions.count == 50
    assert our_tasks()
    for stream in streams:
        stream.call.cancel()
    await until(lambda: served.subscriptions.count == 0 and not our_tasks(), "all is cleaned up")
    assert not caplog.records


async def test_nothing_is_left_of_a_client_that_vanishes_while_lists_flow(served: Served, caplog):
    served.engine.lists = lambda query: ranking(*map(str, range(20)), title="x" * 5000)
    connections: list[asyncio.StreamWriter] = []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", served.server.port)
        connections.extend((writer, there_writer))
        await asyncio.gather(_copy(reader, there_writer), _copy(there_reader, writer), return_exceptions=True)

    wire = await asyncio.start_server(forward, "127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{wire.sockets[0].getsockname()[1]}") as channel:
        streams = [Stream(Served(served.server, served.engine, served.log, channel)) for _ in range(10)]
        for stream in streams:
            await stream.subscribe()
        await until(lambda: served.subscriptions.count == 10, "all are subscribed")
        for _ in range(20):
            served.engine.change(model=True)
            await asyncio.sleep(0)
        wire.close()
        for connection in connections:
            connection.transport.abort()
        for _ in range(20):
            served.engine.change(model=True)
            await asyncio.sleep(0)
        await until(lambda: served.subscriptions.count == 0 and not our_tasks(), "all is cleaned up")
    assert not caplog.records


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        target.write(data)
        await target.drain()


async def test_stopping_the_server_ends_streams_without_waiting_for_the_grace(served: Served):
    streams = [Stream(served) for _ in range(5)]
    for stream in streams:
        await stream.subscribe()
        await stream.list()
    async with asyncio.timeout(5):
        await served.server.stop(60)
    for stream in streams:
        code, message = await stream.end()
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "shutting down" in message
    assert served.subscriptions.count == 0
