from __future__ import annotations

import grpc
import pytest
from ousel import AsyncClient, InvalidArgument, OuselError, Query, RecommendationList, ResourceExhausted

REFUSED = {
    "bob": {
        "code": 3,
        "message": "k must be within 1..1000, got -1",
        "reason": "INVALID_REQUEST",
        "field": "queries[1].k",
    },
    "cyd": {"code": 8, "message": "too many", "reason": "OVERLOADED", "retry_after": {"nanos": 250_000_000}},
    "dan": {"code": 99, "message": "of a newer engine"},
}


def test_each_query_is_sent_with_all_its_options(engine, client):
    options = {"categories": ["fruit"], "exclude_item_ids": ["kiwi"], "exclude_history": True}
    client.recommend_batch(Query(*who, 7, **options) for who in (("ann", None), (None, "tab-1")))
    client.recommend("ann", None, 7, **options)
    client.recommend(None, "tab-1", 7, **options)
    batch, *single = engine.requests
    assert list(batch.queries) == [request.query for request in single]


def test_each_query_is_answered_or_refused_by_itself(engine, client):
    engine.refused = REFUSED
    apple, invalid, crowded, unknown = client.recommend_batch(map(Query, ("ann", "bob", "cyd", "dan")))
    assert isinstance(apple, RecommendationList) and apple == client.recommend("ann")
    assert isinstance(invalid, InvalidArgument) and "got -1" in str(invalid)
    assert (invalid.reason, invalid.field, invalid.retry_after_s) == ("INVALID_REQUEST", "queries[1].k", None)
    assert isinstance(crowded, ResourceExhausted) and str(client.address) in str(crowded)
    assert (crowded.reason, crowded.field, crowded.retry_after_s) == ("OVERLOADED", None, 0.25)
    assert type(unknown) is OuselError and unknown.code == "UNKNOWN" and unknown.reason is None


def test_a_batch_that_fails_as_a_whole_raises(engine, client):
    engine.failures.append((grpc.StatusCode.INVALID_ARGUMENT, "queries must be 1 to 100, got 0"))
    with pytest.raises(InvalidArgument, match="got 0"):
        client.recommend_batch([])


async def test_the_async_client_has_the_same_answers(engine, client):
    engine.refused = REFUSED
    async with AsyncClient(engine.address) as waiting:
        ours, theirs = (
            repr(one)
            for one in (
                await waiting.recommend_batch([Query("ann"), Query("bob")]),
                client.recommend_batch([Query("ann"), Query("bob")]),
            )
        )
    assert ours == theirs and "apple" in ours and "got -1" in ours
