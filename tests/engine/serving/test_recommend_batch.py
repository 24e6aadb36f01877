"""`RecommendBatch`: each query is answered or refused by itself, and a batch as a whole is bounded and taken back."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from ousel.v1.recommender_service_pb2 import Query, RecommendBatchRequest, RecommendRequest

from engine.pipeline import Overloaded
from engine.ranking import query as ranking_query
from tests.engine.serving.fakes import Served, failure, our_tasks, ranking, until

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def batch(*queries: Query) -> RecommendBatchRequest:
    return RecommendBatchRequest(queries=queries)


async def test_each_query_of_a_batch_is_answered_or_refused_by_itself(served: Served):
    def lists(query: ranking_query.Query) -> ranking_query.Ranking:
        return ranking(query.user_id, "b")

    served.engine.lists = lists
    asked = batch(Query(user_id="u1", k=5), Query(user_id="u2", k=1001), Query(), Query(session_id="s1"))
    first, long, nobody, last = (await served.recommender.RecommendBatch(asked)).answers
    assert served.engine.asked == [ranking_query.Query("u1", "", 5), ranking_query.Query("", "s1", 10)]
    alone = (await served.recommender.Recommend(RecommendRequest(query=Query(user_id="u1", k=5)))).list
    assert first.list == alone and [item.item_id for item in last.list.items] == ["", "b"]
    assert (long.refusal.code, long.refusal.reason) == (INVALID.value[0], "INVALID_REQUEST")
    assert long.refusal.message == "k must be within 1..1000, or 0 for 10, got 1001"
    assert (long.refusal.field, nobody.refusal.field) == ("queries[1].k", "queries[2].user_id")
    assert not long.refusal.HasField("retry_after")


async def test_a_list_of_a_batch_that_fails_costs_the_others_nothing(served: Served):
    served.engine.hold = True
    call = asyncio.ensure_future(served.recommender.RecommendBatch(batch(Query(user_id="u1"), Query(user_id="u2"))))
    await until(lambda: len(served.engine.asked_futures) == 2, "two queries")
    failed, made = served.engine.asked_futures
    failed.set_exception(Overloaded("no time", retry_after_ms=100))
    made.set_result(ranking("a"))
    refused, answered = (await call).answers
    assert (refused.refusal.reason, refused.refusal.message) == ("OVERLOADED", "no time")
    assert 100 <= refused.refusal.retry_after.ToMilliseconds() <= 200
    assert [item.item_id for item in answered.list.items] == ["a"]


@pytest.mark.parametrize("count", [0, 101])
async def test_a_batch_of_none_or_too_many_is_refused_as_a_whole(served: Served, count: int):
    asked = batch(*[Query(user_id="u1")] * count)
    message = f"queries must be 1 to 100, got {count}"
    assert await failure(served.recommender.RecommendBatch(asked)) == (INVALID, message)


async def test_a_batch_that_nobody_has_time_for_is_refused_as_a_whole_with_a_hint(served: Served):
    served.engine.refuse_asking = Overloaded("no time")
    code, _ = await failure(served.recommender.RecommendBatch(batch(Query(user_id="u1"))))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    empty = await served.recommender.RecommendBatch(batch(Query()))
    assert empty.answers[0].refusal.field == "queries[0].user_id"


async def test_a_caller_that_leaves_takes_its_whole_batch_back(served: Served):
    served.engine.hold = True
    call = served.recommender.RecommendBatch(batch(*[Query(user_id="u1")] * 3))
    await until(lambda: len(served.engine.asked_futures) == 3, "three queries")
    call.cancel()
    await until(lambda: all(one.cancelled() for one in served.engine.asked_futures), "all taken back")
    await until(lambda: not our_tasks(), "no coroutine")
