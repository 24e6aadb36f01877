"""Recommend calls whose list must reflect a record: how long they wait, and how that ends."""

import grpc
import pytest
from ousel.v1 import event_pb2
from ousel.v1.recommender_service_pb2 import Query, RecommendRequest

from engine import metrics
from engine.config import ServingConfig
from engine.pipeline import NotFollowing, Overloaded
from engine.ranking import query as ranking_query
from engine.waiting import NoSuchRecord
from tests.engine.serving.fakes import Served, failure, until

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def request() -> RecommendRequest:
    return RecommendRequest(query=Query(user_id="u1", k=5))


async def test_a_list_may_be_asked_for_that_reflects_a_record(served: Served):
    position = event_pb2.LogPosition(topic="ousel.events", partition=2, offset=7)
    await served.recommender.Recommend(request())
    await served.recommender.Recommend(RecommendRequest(query=request().query, after=position))
    assert served.engine.asked_after == [None, ranking_query.Position("ousel.events", 2, 7)]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("topic", "other", "after.topic must be 'ousel.events', got 'other'"),
        ("partition", -1, "after.partition must be >= 0, got -1"),
        ("offset", -3, "after.offset must be >= 0, got -3"),
    ],
)
async def test_refuses_a_record_that_can_not_be(served: Served, field, value, message):
    position = event_pb2.LogPosition(topic="ousel.events", partition=0, offset=0)
    setattr(position, field, value)
    call = served.recommender.Recommend(RecommendRequest(query=request().query, after=position))
    assert await failure(call) == (INVALID, message)


LOST = RecommendRequest(
    query=Query(user_id="u1", k=5), after=event_pb2.LogPosition(topic="ousel.events", partition=2, offset=7)
)


def waited(how: str) -> float:
    return metrics.CALLS_WAITED.labels(how)._value.get()


@pytest.mark.parametrize("timeout", [60, None])
@pytest.mark.parametrize(
    "config", [ServingConfig(port=0, metrics_port=0, max_record_wait_ms=200)], indirect=True, ids=["200 ms"]
)
async def test_a_record_that_does_not_come_is_waited_for_within_a_limit(served: Served, timeout):
    served.engine.hold = True
    before = waited("late")
    assert await failure(served.recommender.Recommend(LOST, timeout=timeout)) == (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "the engine has not folded ousel.events[2] at offset 7 within 0.2 s",
    )
    assert served.engine.asked_futures[0].cancelled()
    assert waited("late") == before + 1


async def test_a_call_that_waits_for_a_record_goes_with_its_caller(served: Served):
    served.engine.hold = True
    before, waiting = waited("left"), metrics.QUERIES_WAITING._value.get()
    call = served.recommender.Recommend(LOST)
    await until(lambda: bool(served.engine.asked_futures), "the engine is asked")
    assert metrics.QUERIES_WAITING._value.get() == waiting  # it takes no place of the calls that wait for no record
    call.cancel()
    await until(lambda: served.engine.asked_futures[0].cancelled(), "the engine's future is cancelled")
    await until(lambda: waited("left") == before + 1, "the call is counted")


@pytest.mark.parametrize(
    ("error", "how", "code"),
    [
        (NoSuchRecord("after.offset must be below 7"), "no_record", grpc.StatusCode.OUT_OF_RANGE),
        (Overloaded("at most 5 calls may wait"), "refused", grpc.StatusCode.RESOURCE_EXHAUSTED),
        (NotFollowing("not read here"), "failed", grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_a_call_that_can_not_wait_for_its_record_says_why_and_is_counted(served: Served, error, how, code):
    served.engine.refuse_asking = error
    before = waited(how)
    assert await failure(served.recommender.Recommend(LOST)) == (code, str(error))
    assert waited(how) == before + 1
