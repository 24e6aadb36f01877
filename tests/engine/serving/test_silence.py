"""Calls and streams whose first message does not come, or comes by halves: each ends, and keeps nobody else out."""

from __future__ import annotations

import asyncio
import struct

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from ousel.v1.recommender_service_pb2 import Query, RecommendRequest

from engine import metrics
from engine.config import ServingConfig
from engine.serving import foreign_calls
from engine.serving.first_message import FirstMessages
from engine.serving.server import SERVICES
from engine.waiting import Overloaded
from tests.engine.serving.fakes import Served, Stream, failure, until

QUICK = ServingConfig(port=0, metrics_port=0, max_silence_ms=100)
LATE = grpc.StatusCode.DEADLINE_EXCEEDED
WATCH, REFLECT = "/grpc.health.v1.Health/Watch", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
UNARY = [
    *("RecommenderService/Recommend", "EventService/Track", "ModelService/GetStatus", "ModelService/RollBack"),
    *("ModelService/ListModels", "ModelService/PinModel", "ModelService/UnpinModel", "ModelService/PruneModels"),
    *("PrivacyService/ExportUser", "PrivacyService/ForgetUser", "StateService/GetDigest", "StateService/TakeSnapshot"),
]

quick = pytest.mark.parametrize("config", [QUICK], indirect=True)


def silent() -> int:
    return int(metrics.CALLS_SILENT.collect()[0].samples[0].value)


@quick
@pytest.mark.parametrize("method", [*(f"/ousel.v1.{name}" for name in UNARY), "/grpc.health.v1.Health/Check"])
async def test_a_unary_call_without_its_message_ends(served: Served, method):
    code, why = await failure(served.channel.stream_unary(method)())
    assert (code, why) == (LATE, "the first message did not come within 0.1 s")
    assert silent() == 0


def test_all_services_are_covered():
    assert {name.split("/")[0] for name in UNARY} | {"RecommenderService"} == {
        name.removeprefix("ousel.v1.") for name in SERVICES
    }


@quick
async def test_a_stream_that_never_says_what_it_wants_ends_and_one_that_did_may_be_silent(served: Served):
    watching = health_pb2_grpc.HealthStub(served.channel).Watch(health_pb2.HealthCheckRequest())
    assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    subscribed = Stream(served)
    await subscribed.subscribe()
    await subscribed.list()
    for _ in range(3):
        assert (await Stream(served).end())[0] is LATE
    assert (await failure(served.channel.stream_stream(WATCH)().read()))[0] is LATE
    served.engine.change(model=True)
    await subscribed.list()
    await served.server.set_serving(True)
    assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def header(name: bytes, value: bytes) -> bytes:
    """A field of HPACK, literally and not indexed."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def half_a_call(path: bytes) -> bytes:
    """HTTP/2 of a call whose message is announced as longer than what comes."""
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"localhost"),
              (b"te", b"trailers"), (b"content-type", b"application/grpc")]  # fmt: skip
    headers = b"".join(header(*field) for field in fields)
    message = RecommendRequest(query=Query(user_id="u1", k=5)).SerializeToString()
    data = b"\0" + struct.pack(">I", len(message)) + message[:-1]
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 4, 1, headers) + frame(0, 0, 1, data)


@quick
async def test_a_message_of_which_a_byte_is_missing_ends_its_call(served: Served):
    late = metrics.CALLS.labels("RecommenderService/Recommend", LATE.name)._value
    before = late.get()
    _, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
    writer.write(half_a_call(b"/ousel.v1.RecommenderService/Recommend"))
    await until(lambda: late.get() == before + 1, "the call is counted")
    writer.close()
    assert silent() == 0 and served.engine.asked == []
    await served.recommender.Recommend(RecommendRequest(query=Query(user_id="u1", k=5)))


async def test_no_more_than_the_limit_may_be_silent_and_each_has_its_own_time():
    first, now, read = FirstMessages(2, 0.2), asyncio.get_running_loop().time, asyncio.Event()

    class Context:
        async def read(self) -> str:
            await read.wait()
            return "message"

    began = now()
    late = [asyncio.create_task(first.read(Context())) for _ in range(2)]
    await asyncio.sleep(0)
    assert silent() == 2
    with pytest.raises(Overloaded, match="at most 2 calls"):
        await first.read(Context())
    for each in late:
        with pytest.raises(TimeoutError, match="did not come within"):
            async with asyncio.timeout(30):
                await each
    assert now() - began >= 0.2
    in_time = asyncio.create_task(first.read(Context()))
    await asyncio.sleep(0)
    read.set()
    assert await in_time == "message"
    assert silent() == 0


async def test_a_call_that_its_client_cancels_before_its_message_is_not_late(served: Served):
    left = metrics.CALLS.labels("RecommenderService/Recommend", "CANCELLED")._value
    await until(lambda: silent() == 0, "no call of another test is left")
    before = left.get()
    call = served.channel.stream_unary("/ousel.v1.RecommenderService/Recommend")()
    await until(lambda: silent() == 1, "the call has come")
    call.cancel()
    await until(lambda: left.get() == before + 1, "the call is counted")
    assert silent() == 0


async def test_streams_of_health_and_reflection_are_refused_beyond_a_limit(served: Served, monkeypatch):
    monkeypatch.setattr(foreign_calls, "_MAX_OPEN", 2)
    health = health_pb2_grpc.HealthStub(served.channel)
    open_now = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(2)]
    for watching in open_now:
        await watching.read()
    counted = metrics.HEALTH_STREAMS_REFUSED.labels(WATCH)._value
    before = counted.get()
    refused = health.Watch(health_pb2.HealthCheckRequest())
    code, why = await failure(refused.read())
    assert (code, why) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        f"at most 2 streams of {WATCH} may be open, try again later",
    )
    assert "grpc-retry-pushback-ms" in dict(await refused.trailing_metadata())
    assert counted.get() == before + 1
    open_now[0].cancel()
    again = health.Watch(health_pb2.HealthCheckRequest())
    while await failure_or_none(again.read()):
        again = health.Watch(health_pb2.HealthCheckRequest())


async def failure_or_none(call: object) -> grpc.StatusCode | None:
    try:
        await call
    except grpc.RpcError as error:
        return error.code()
    return None


async def test_a_client_that_reflects_is_answered_and_may_not_stay_for_ever(served: Served, monkeypatch):
    monkeypatch.setattr(foreign_calls, "_REFLECTION_S", 0.3)
    stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)
    call = stub.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    names = {service.name for service in (await call.read()).list_services_response.service}
    assert set(SERVICES) < names
    assert (await failure(call.read()))[0] is LATE


@pytest.mark.parametrize("path", [REFLECT, WATCH, "/grpc.health.v1.Health/Check"])
async def test_a_message_of_a_foreign_service_that_is_none_is_the_callers_fault(served: Served, path):
    call = served.channel.stream_stream(path)()
    await call.write(b"\xff\xff\xff")
    code, why = await failure(call.read())
    assert (code, why.partition(",")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, "the request must be a valid message")
