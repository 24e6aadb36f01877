import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest
from ousel.v1 import event_pb2
from ousel.v1.model_service_pb2 import (
    GetStatusRequest,
    PushWeightsRequest,
    PushWeightsResponse,
    RollBackRequest,
    WeightsHeader,
)
from ousel.v1.model_service_pb2_grpc import ModelServiceStub
from ousel.v1.recommender_service_pb2 import Query, RecommendRequest

from engine import metrics
from engine.config import Config
from engine.model.weights import WeightsError
from engine.pipeline import Overloaded, RollBackRefused, StaleVersion
from engine.serving import model_servicer
from tests.engine.serving.fakes import Served, Stream, failure, until

INVALID = grpc.StatusCode.INVALID_ARGUMENT
WEIGHTS = bytes(range(256)) * 200
BESIDE = (grpc.StatusCode.ABORTED, "another push is being received or installed, try again later")
DIGEST = hashlib.sha256(WEIGHTS).digest()


def header(**fields: object) -> PushWeightsRequest:
    known = {"version": 4, "size_bytes": len(WEIGHTS), "sha256": DIGEST, "metrics": {"hit_rate@20": 0.5}}
    return PushWeightsRequest(header=WeightsHeader(**{**known, **fields}))


def chunks(data: bytes = WEIGHTS, size: int = 20_000) -> list[PushWeightsRequest]:
    return [PushWeightsRequest(chunk=data[start : start + size]) for start in range(0, len(data), size)]


async def push(served: Served, messages: list[PushWeightsRequest]) -> PushWeightsResponse:
    """A push by a blocking client: grpc.aio's may report a server that ends a push early as INTERNAL (grpc#36066)."""

    def call() -> PushWeightsResponse:
        with grpc.insecure_channel(f"127.0.0.1:{served.server.port}") as channel:
            return ModelServiceStub(channel).PushWeights(iter(messages), timeout=5)

    return await asyncio.to_thread(call)


@contextmanager
def pushes(accepted: int = 0, refused: int = 0) -> Iterator[None]:
    def counted() -> list[float]:
        return [metrics.MODEL_PUSHES.labels(outcome)._value.get() for outcome in ("accepted", "refused")]

    before = counted()
    yield
    assert [now - was for now, was in zip(counted(), before, strict=True)] == [accepted, refused]


# -- PushWeights -----------------------------------------------------------------------------------------------------


async def test_installs_what_was_pushed_and_answers_once_it_serves(served: Served):
    served.engine.hold = True
    with pushes(accepted=1):
        call = asyncio.create_task(push(served, [header(), *chunks()]))
        await until(lambda: bool(served.engine.swaps), "the engine has the weights")
        assert served.engine.installed == [(WEIGHTS, 4, {"hit_rate@20": 0.5})]
        assert isinstance(served.engine.installed[0][0], bytes)
        assert not call.done()
        served.engine.swaps[0].set_result(None)
        answer = await call
    assert answer.version == 4
    assert answer.swap_ms > 0


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "the first message must be header, got nothing"),
        (chunks(), "the first message must be header, got chunk"),
        ([PushWeightsRequest()], "the first message must be header, got neither header nor chunk"),
        ([header(version=0), *chunks()], "version must be >= 1, got 0"),
        ([header(size_bytes=0)], "size_bytes must be within 1..100000, got 0"),
        ([header(size_bytes=100_001)], "size_bytes must be within 1..100000, got 100001"),
        ([header(sha256=b"short"), *chunks()], "sha256 must have 32 bytes, got 5"),
        ([header(), *chunks()[:-1]], "weights are truncated: size_bytes says 51200, got 40000"),
        ([header()], "weights are truncated: size_bytes says 51200, got 0"),
        ([header(), *chunks(), *chunks()], "weights are too long: size_bytes says 51200, got 71200 or more"),
        ([header(), header()], "messages after the header must be chunk, got header"),
        ([header(), PushWeightsRequest()], "messages after the header must be chunk, got neither"),
    ],
)
async def test_refuses_a_push_that_is_not_as_announced(served: Served, messages, message):
    with pushes(refused=1):
        assert await failure(push(served, messages)) == (INVALID, message)
    assert served.engine.installed == []


async def test_refuses_weights_of_another_digest(served: Served):
    damaged = bytearray(WEIGHTS)
    damaged[12345] ^= 1
    with pushes(refused=1):
        code, message = await failure(push(served, [header(), *chunks(bytes(damaged))]))
    assert code is INVALID
    got = hashlib.sha256(damaged).hexdigest()
    assert message == f"sha256 must be the digest of the weights, got {DIGEST.hex()} for {got}"
    assert served.engine.installed == []


async def test_refuses_too_many_bytes_at_once_without_waiting_for_the_end(served: Served):
    call = served.model.PushWeights()
    await call.write(header(size_bytes=10_000))
    await call.write(chunks()[0])
    code, message = await failure(call)
    assert (code, message) == (INVALID, "weights are too long: size_bytes says 10000, got 20000 or more")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WeightsError("tensor item.table must be (7, 4), got (7, 5)"), INVALID),
        (StaleVersion("version must be > 9, the one that serves, got 4"), grpc.StatusCode.FAILED_PRECONDITION),
    ],
)
async def test_passes_on_why_the_engine_refused(served: Served, error, code):
    served.engine.refuse_installing = error
    with pushes(refused=1):
        assert await failure(push(served, [header(), *chunks()])) == (code, str(error))


@pytest.fixture
def headers(monkeypatch) -> list[WeightsHeader]:
    """Every header that the server has read."""
    seen: list[WeightsHeader] = []
    check = model_servicer.check_header

    def spy(header: WeightsHeader, config: Config) -> None:
        seen.append(header)
        check(header, config)

    monkeypatch.setattr(model_servicer, "check_header", spy)
    return seen


async def test_refuses_a_second_push_beside_a_first(served: Served, headers):
    first = served.model.PushWeights()
    await first.write(header())
    await until(lambda: bool(headers), "the first push is under way")
    with pushes():
        assert await failure(push(served, [header(), *chunks()])) == BESIDE
    for chunk in chunks():
        await first.write(chunk)
    await first.done_writing()
    assert (await first).version == 4
    assert len(served.engine.installed) == 1


async def test_takes_a_push_after_one_that_was_refused(served: Served):
    await failure(push(served, [header(version=0)]))
    assert (await push(served, [header(), *chunks()])).version == 4


async def test_takes_a_push_after_one_that_broke_off(served: Served, headers):
    refused = metrics.MODEL_PUSHES.labels("refused")._value
    before = refused.get()
    broken = served.model.PushWeights()
    await broken.write(header())
    await until(lambda: bool(headers), "the push is under way")
    broken.cancel()
    await until(lambda: refused.get() == before + 1, "the server knows")
    assert (await push(served, [header(), *chunks()])).version == 4


async def test_a_swap_goes_on_and_stays_alone_when_its_caller_leaves(served: Served):
    served.engine.hold = True
    cancelled = metrics.CALLS.labels("ModelService/PushWeights", "CANCELLED")._value
    before = cancelled.get()
    call = served.model.PushWeights(iter([header(), *chunks()]))
    await until(lambda: bool(served.engine.swaps), "the engine has the weights")
    call.cancel()
    await until(lambda: cancelled.get() == before + 1, "the server knows")
    assert await failure(push(served, [header(), *chunks()])) == BESIDE
    served.engine.hold = False
    accepted = metrics.MODEL_PUSHES.labels("accepted")._value
    count = accepted.get()
    assert not served.engine.swaps[0].cancelled()
    served.engine.swaps[0].set_result(None)
    await until(lambda: accepted.get() == count + 1, "the swap is done")
    assert (await push(served, [header(version=5), *chunks()])).version == 5


async def test_a_silent_push_gives_its_place_free(served: Served, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(model_servicer, "_CHUNK_WAIT_S", 0.05)
        call = served.model.PushWeights()
        await call.write(header())
        assert await failure(call) == (grpc.StatusCode.DEADLINE_EXCEEDED, "the push was silent for 0.05 s")
    assert (await push(served, [header(), *chunks()])).version == 4


# -- RollBack --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wanted", "passed_on"), [(0, None), (3, 3)])
async def test_rolls_back_and_answers_once_the_model_before_serves(served: Served, wanted, passed_on):
    served.engine.hold = True
    before = metrics.MODEL_ROLL_BACKS._value.get()
    call = asyncio.ensure_future(served.model.RollBack(RollBackRequest(expected_version=wanted)))
    await until(lambda: bool(served.engine.roll_backs), "the engine is asked")
    assert served.engine.rolled_back == [passed_on]
    assert not call.done()
    served.engine.roll_backs[0].set_result(2)
    answer = await call
    assert answer.version == 2
    assert answer.swap_ms > 0
    assert metrics.MODEL_ROLL_BACKS._value.get() == before + 1


async def test_says_why_there_is_nothing_to_roll_back_to_and_takes_a_push_afterwards(served: Served):
    served.engine.refuse_rolling_back = RollBackRefused("there is no generation before version 3 to roll back to")
    before = metrics.MODEL_ROLL_BACKS._value.get()
    assert await failure(served.model.RollBack(RollBackRequest())) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "there is no generation before version 3 to roll back to",
    )
    assert metrics.MODEL_ROLL_BACKS._value.get() == before
    assert (await push(served, [header(), *chunks()])).version == 4


async def test_neither_rolls_back_during_a_push_nor_takes_a_push_during_a_roll_back(served: Served, headers):
    first = served.model.PushWeights()
    await first.write(header())
    await until(lambda: bool(headers), "the push is under way")
    assert await failure(served.model.RollBack(RollBackRequest())) == (
        grpc.StatusCode.ABORTED,
        "a push is being received or installed, try again later",
    )
    assert served.engine.rolled_back == []
    for chunk in chunks():
        await first.write(chunk)
    await first.done_writing()
    await first
    served.engine.hold = True
    call = asyncio.ensure_future(served.model.RollBack(RollBackRequest()))
    await until(lambda: bool(served.engine.roll_backs), "the engine is asked")
    assert await failure(push(served, [header(), *chunks()])) == BESIDE
    served.engine.roll_backs[0].set_result(2)
    await call


# -- GetStatus -------------------------------------------------------------------------------------------------------


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
