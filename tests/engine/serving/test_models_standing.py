"""Roll backs, pins, and what is told of the models and of the engine."""

import grpc
import pytest
from ousel.v1 import event_pb2
from ousel.v1.model_service_pb2 import (
    MODEL_ORIGIN_LOCAL_COPY,
    MODEL_STATE_WITHDRAWN,
    GetStatusRequest,
    ListModelsRequest,
    PinModelRequest,
    PruneModelsRequest,
    RollBackRequest,
    UnpinModelRequest,
)
from ousel.v1.recommender_service_pb2 import Query, RecommendRequest

from engine import metrics
from engine.generations import RollBackRefused
from engine.pipeline import Overloaded
from engine.ranking.query import Position
from engine.registry.errors import NoSuchModel, VersionPinned
from engine.registry.ledger import Ledger, ListedModel, ModelState
from engine.registry.standing import Building, RefusedHere, Source, Standing
from engine.registry.stored import StoredModel
from tests.engine.serving.fakes import Served, Stream, failure, until
from tests.engine.serving.pushes import chunks, finish, header, push, under_way


@pytest.mark.parametrize(("wanted", "passed_on"), [(0, None), (3, 3)])
async def test_rolls_back_and_says_what_serves_again(served: Served, wanted, passed_on):
    before = metrics.MODEL_ROLL_BACKS._value.get()
    answer = await served.model.RollBack(RollBackRequest(expected_version=wanted))
    assert served.models.asked == [("roll back", passed_on, "ipv4")]
    assert (answer.version, answer.serving) == (2, True)
    assert answer.swap_ms > 0
    assert metrics.MODEL_ROLL_BACKS._value.get() == before + 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RollBackRefused("there is no model before version 3 to roll back to"), grpc.StatusCode.FAILED_PRECONDITION),
        (VersionPinned("version 2 is pinned: unpin it first"), grpc.StatusCode.FAILED_PRECONDITION),
    ],
)
async def test_says_why_there_is_nothing_to_roll_back_to_and_takes_a_push_afterwards(served: Served, error, code):
    served.models.refuse = error
    before = metrics.MODEL_ROLL_BACKS._value.get()
    assert await failure(served.model.RollBack(RollBackRequest())) == (code, str(error))
    assert metrics.MODEL_ROLL_BACKS._value.get() == before
    served.models.refuse = None
    assert (await push(served, [header(), *chunks()])).version == 4


async def test_a_roll_back_does_not_wait_for_a_push_that_is_being_received(served: Served):
    first = await under_way(served)
    assert (await served.model.RollBack(RollBackRequest())).version == 2
    assert (await finish(first)).version == 4


async def test_pins_unpins_and_prunes(served: Served):
    assert (await served.model.PinModel(PinModelRequest(version=2))).version == 2
    assert (await served.model.UnpinModel(UnpinModelRequest())).version == 0
    assert list((await served.model.PruneModels(PruneModelsRequest())).versions) == [2, 1]
    await served.model.PruneModels(PruneModelsRequest(keep=5))
    assert served.models.asked == [("pin", 2, "ipv4"), ("pin", None, "ipv4"), ("prune", None), ("prune", 5)]
    served.models.refuse = NoSuchModel("version must be one of the registry's (3), got 9")
    assert await failure(served.model.PinModel(PinModelRequest(version=9))) == (
        grpc.StatusCode.NOT_FOUND,
        "version must be one of the registry's (3), got 9",
    )


async def test_lists_the_models_and_what_this_engine_makes_of_them(served: Served):
    stored = StoredModel(
        3, "ab" * 32, 51200, {"hit_rate@20": 0.5}, (Position("ousel.events", 1, 41),), 1_700_000_000_123, "me", "host-1"
    )
    listed = ListedModel(stored, ModelState.WITHDRAWN, "the canary", "model/3-x")
    served.models.ledger = Ledger((listed,), newest=3, pinned=None)
    served.models.standing_now = Standing(
        Source.LOCAL_COPY,
        Building(4, 0.25, 0.0, 1.5),
        RefusedHere(3, "the canary", 1_700_000_001.5),
        "it is away",
    )
    answer = await served.model.ListModels(ListModelsRequest())
    (model,) = answer.models
    assert (model.version, model.sha256.hex(), model.size_bytes, dict(model.metrics)) == (
        3, "ab" * 32, 51200, {"hit_rate@20": 0.5},
    )  # fmt: skip
    assert (model.trained_on[0].offset, model.accepted.ToMilliseconds()) == (41, 1_700_000_000_123)
    assert (model.pushed_by, model.engine, model.reason) == ("me", "host-1", "the canary")
    assert model.state == MODEL_STATE_WITHDRAWN
    assert (answer.newest_version, answer.announced_version, answer.serving_version, answer.serving) == (3, 0, 3, True)
    assert (answer.building.version, answer.building.progress, answer.building.seconds) == (4, 0.25, 1.5)
    assert (answer.refused.version, answer.refused.time.ToMilliseconds()) == (3, 1_700_000_001_500)
    assert (answer.origin, answer.registry_problem) == (MODEL_ORIGIN_LOCAL_COPY, "it is away")
    assert (answer.dir, answer.topic) == ("s3://shop/models", "ousel.models")
    status = await served.model.GetStatus(GetStatusRequest())
    assert (status.building, status.refused) == (answer.building, answer.refused)
    assert (status.model_origin, status.registry_problem) == (MODEL_ORIGIN_LOCAL_COPY, "it is away")


async def test_shows_the_engines_status(served: Served):
    status = await served.model.GetStatus(GetStatusRequest())
    assert status.serving
    assert (status.model_version, list(status.model_versions)) == (3, [2, 3])
    assert dict(status.model_metrics) == {"hit_rate@20": 0.25}
    assert (status.users, status.items, status.index_items) == (10, 20, 19)
    assert (status.events_folded, status.items_folded, status.events_dead_lettered, status.lag) == (1000, 21, 4, 7)
    assert list(status.reflects) == [event_pb2.LogPosition(topic="ousel.events", partition=0, offset=99)]
    assert status.uptime_s == 1.5
    assert (status.streams, status.failed_calls) == (0, 0)
    assert (list(status.partitions), status.partitions_total) == ([0, 2], 4)
    assert (status.users_limit, status.users_evicted, status.items_evicted) == (500, 11, 12)
    assert (status.targets, status.targets_evicted) == (16, 17)
    assert (status.users_forgotten, status.events_duplicate, status.records_redelivered) == (13, 14, 15)
    assert status.snapshot_time.ToMilliseconds() == 1_700_000_000_123


async def test_shows_no_snapshot_time_before_the_first_snapshot(served: Served):
    served.engine.snapshot_time_s = None
    assert not (await served.model.GetStatus(GetStatusRequest())).HasField("snapshot_time")


async def test_counts_open_streams_and_calls_that_the_engine_failed(served: Served):
    streams = [Stream(served) for _ in range(3)]
    for stream in streams:
        await stream.subscribe()
        await stream.list()
    streams[0].call.cancel()
    await until(lambda: served.subscriptions.count == 2, "one stream is gone")
    await failure(push(served, [header(version=0)]))  # the caller's own fault
    served.engine.refuse_asking = Overloaded("full")
    await failure(served.recommender.Recommend(RecommendRequest(query=Query(user_id="u", k=1))))
    served.log.failure = RuntimeError("no broker")
    await streams[1].send(item_id="i")
    await streams[1].end()
    await until(lambda: served.subscriptions.count == 1, "another stream is gone")
    status = await served.model.GetStatus(GetStatusRequest())
    assert (status.streams, status.failed_calls) == (1, 2)
