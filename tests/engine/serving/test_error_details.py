"""What a caller reads of an error over the wire: the reason, and the path of the value that was refused."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from ousel import AsyncClient, InvalidArgument, OuselError, Position
from ousel.v1 import event_pb2, event_service_pb2, model_service_pb2, privacy_service_pb2, recommender_service_pb2

from engine.pipeline import Overloaded
from tests.engine.serving.fakes import Served, Stream

LONG = "x" * 33  # longer than ids may be here


def query(**fields: object) -> recommender_service_pb2.RecommendRequest:
    return recommender_service_pb2.RecommendRequest(query=recommender_service_pb2.Query(**fields))


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (query(user_id="u1", k=-1), "query.k"),
        (query(), "query.user_id"),
        (query(user_id=LONG), "query.user_id"),
        (query(session_id=LONG), "query.session_id"),
        (query(user_id="u1", options={"categories": ["a", ""]}), "query.options.categories[1]"),
        (query(user_id="u1", options={"exclude_item_ids": [LONG]}), "query.options.exclude_item_ids[0]"),
        (recommender_service_pb2.RecommendRequest(query={"user_id": "u"}, after={"topic": "no"}), "after.topic"),
    ],
)
async def test_a_query_that_breaks_a_rule_names_the_field(request_, field, served: Served):
    assert await refused_field(served.recommender.Recommend(request_)) == field


@pytest.mark.parametrize(
    ("event", "field"),
    [
        ({"user_id": "u1"}, "event.item_id"),
        ({"item_id": "i"}, "event.user_id"),
        ({"user_id": "u1", "item_id": "i", "kind": "hum"}, "event.kind"),
        ({"user_id": "u1", "item_id": "i", "value": -1}, "event.value"),
        ({"user_id": "u1", "item_id": "i", "time": {"seconds": 7 * 10**10}}, "event.time"),
        ({"user_id": "null", "item_id": "i"}, "event.user_id"),
        ({"user_id": "u1", "target_user_id": "u1"}, "event.target_user_id"),
        ({"item_id": "i", "entity_id": "e", "session_id": "s"}, "event.session_id"),
        ({"user_id": "u1", "forget": True}, "event.forget"),
    ],
)
async def test_an_event_that_breaks_a_rule_names_the_field(event, field, served: Served):
    request = event_service_pb2.TrackRequest(event=event_pb2.Event(**event))
    assert await refused_field(served.events.Track(request)) == field


async def test_other_calls_and_streams_name_the_field(served: Served):
    both = privacy_service_pb2.ExportUserRequest(user_id="u", session_id="s")
    assert await refused_field(served.privacy.ExportUser(both)) == "session_id"
    push = served.model.PushWeights()
    await push.write(model_service_pb2.PushWeightsRequest(header={"version": 0, "size_bytes": 1, "sha256": b"x" * 32}))
    assert await refused_field(push) == "header.version"
    stream = Stream(served)
    await stream.subscribe(k=-1)
    assert await refused_field(stream.call.read(), stream.call) == "subscribe.k"
    stream = Stream(served)
    await stream.subscribe()
    await stream.list()
    await stream.send(item_id="i", user_id="u2")
    assert await refused_field(stream.call.read(), stream.call) == "event.user_id"


async def test_the_python_client_shows_reason_and_field(served: Served):
    async with AsyncClient(f"127.0.0.1:{served.server.port}") as client:
        with pytest.raises(InvalidArgument) as refused:
            await client.recommend("u1", k=-1)
        assert (refused.value.reason, refused.value.field) == ("INVALID_REQUEST", "query.k")
        with pytest.raises(InvalidArgument) as refused:
            await client.recommend("u1", after=Position("ousel.events", -1, 0))
        assert refused.value.field == "after.partition"
        served.models.refuse = Overloaded("busy")
        with pytest.raises(OuselError) as failed:
            await client.roll_back()
        assert (failed.value.reason, failed.value.field) == ("OVERLOADED", None)


async def refused_field(waiting: object, call: grpc.aio.Call | None = None) -> str:
    """The field that a refused call's BadRequest names."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await waiting  # type: ignore[misc]
    assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT, failed.value
    trailing = dict(failed.value.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info) and status.details[1].Unpack(bad)
    assert info.reason == "INVALID_REQUEST"
    (violation,) = bad.field_violations
    assert violation.description == failed.value.details()
    return violation.field
