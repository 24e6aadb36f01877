"""How an engine lets go of its callers: in the order that they see at its end, and connection by connection by age."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ousel.v1 import model_service_pb2
from ousel.v1.recommender_service_pb2 import Query, RecommendRequest

from engine import metrics
from engine.config import ServingConfig
from engine.ranking.query import Cause
from engine.serving.model_servicer import ModelServicer
from tests.engine.serving.fakes import Served, Stream, ranking, until

ASK = RecommendRequest(query=Query(user_id="u1"))
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def settings(**given: object) -> ServingConfig:
    return ServingConfig(port=0, metrics_port=0, **given)


def watch_health(served: Served) -> grpc.aio.UnaryStreamCall:
    return health_pb2_grpc.HealthStub(served.channel).Watch(health_pb2.HealthCheckRequest())


def reason(error: grpc.aio.AioRpcError) -> str:
    info = error_details_pb2.ErrorInfo()
    packed = dict(error.trailing_metadata())["grpc-status-details-bin"]
    assert status_pb2.Status.FromString(packed).details[0].Unpack(info)
    return info.reason


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The connections that GetStatus was called on."""
    found: set[str] = set()
    answer = ModelServicer.GetStatus

    async def noted(self: ModelServicer, request: object, context: grpc.aio.ServicerContext) -> object:
        found.add(context.peer())
        return await answer(self, request, context)

    monkeypatch.setattr(ModelServicer, "GetStatus", noted)
    return found


@pytest.fixture
async def stopping(served: Served) -> AsyncIterator[list[asyncio.Task[None]]]:
    """What stops the server, so that a failing test leaves nothing behind."""
    tasks: list[asyncio.Task[None]] = []
    yield tasks
    for task in tasks:
        await task


async def test_at_its_end_an_engine_says_so_first_and_ends_streams_before_calls(served: Served, stopping):
    await served.server.set_serving(True)
    watch, stream = watch_health(served), Stream(served)
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    await stream.subscribe()
    await stream.list()
    served.engine.hold = True
    running = asyncio.ensure_future(served.recommender.Recommend(ASK))
    await until(lambda: len(served.engine.asked_futures) == 1, "a call")
    stopping.append(asyncio.create_task(served.server.stop(grace_s=30, drain_s=1.5)))

    # First, health says so, while lists come as before, and while calls are answered.
    assert (await watch.read()).status == NOT_SERVING
    served.engine.lists = lambda query: ranking("c")
    served.engine.change("u1")
    assert await stream.list() == (["c"], Cause.EVENTS)
    await served.model.GetStatus(model_service_pb2.GetStatusRequest(), timeout=10)

    # Then streams end, with a hint, and those who watch health are sent away.
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await stream.call.read()
    assert (ended.value.code(), reason(ended.value)) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    assert int(dict(ended.value.trailing_metadata())["grpc-retry-pushback-ms"]) > 0
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await watch.read()
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE

    # The call that runs has its time still.
    assert not running.done() and not stopping[0].done()
    served.engine.asked_futures[0].set_result(ranking("a"))
    assert (await running).list.items[0].item_id == "a"
    async with asyncio.timeout(20):
        await stopping[0]


async def test_who_watches_health_does_not_hold_an_engine_up(served: Served):
    watch = watch_health(served)
    await watch.read()
    async with asyncio.timeout(20):
        await served.server.stop(grace_s=3600)


@pytest.mark.parametrize("config", [settings(max_connection_age_s=1, max_connection_age_grace_s=20)], indirect=True)
async def test_an_old_connection_takes_no_further_calls_and_what_is_open_on_it_goes_on(peers: set[str], served: Served):
    served.engine.hold = True
    call = served.recommender.Recommend(ASK)
    await until(lambda: len(served.engine.asked_futures) == 1, "a call")
    stream = Stream(served)
    await stream.subscribe()
    await stream.list()
    async with asyncio.timeout(20):
        while len(peers) < 2:
            await served.model.GetStatus(model_service_pb2.GetStatusRequest(), timeout=10)
    served.engine.asked_futures[0].set_result(ranking("a"))
    assert (await call).list.items
    served.engine.lists = lambda query: ranking("c")
    served.engine.change("u1")
    assert await stream.list() == (["c"], Cause.EVENTS)


@pytest.mark.parametrize("config", [settings(max_connection_age_s=60, max_connection_age_grace_s=0.5)], indirect=True)
async def test_a_stream_ends_by_itself_before_its_connection_would_and_has_not_failed(served: Served):
    def counted(code: str) -> float:
        return metrics.CALLS.labels("RecommenderService/StreamRecommendations", code)._value.get()

    ok, aged, failed = counted("OK"), metrics.STREAMS_AGED._value.get(), served.server.models._calls.failed
    stream = Stream(served)
    await stream.subscribe()
    await stream.list()
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        async with asyncio.timeout(20):
            await stream.call.read()
    assert (ended.value.code(), reason(ended.value)) == (grpc.StatusCode.UNAVAILABLE, "STREAM_TOO_OLD")
    assert int(dict(ended.value.trailing_metadata())["grpc-retry-pushback-ms"]) > 0
    assert metrics.STREAMS_AGED._value.get() == aged + 1
    assert (counted("OK"), served.server.models._calls.failed) == (ok + 1, failed)


@pytest.mark.parametrize("config", [settings(max_connection_age_s=0, max_connection_age_grace_s=0.01)], indirect=True)
async def test_where_connections_may_have_any_age_so_may_streams(served: Served):
    stream = Stream(served)
    await stream.subscribe()
    await stream.list()
    for number in range(20):  # each a turn of the event loop after the grace would be over
        await asyncio.sleep(0.005)
        served.engine.lists = lambda query, number=number: ranking(f"i{number}")
        served.engine.change("u1")
        assert (await stream.list())[0] == [f"i{number}"]
