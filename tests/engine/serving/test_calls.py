import asyncio
import logging

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ousel.v1.model_service_pb2 import GetStatusRequest
from ousel.v1.recommender_service_pb2 import Query, RecommendRequest

from engine import metrics
from engine.limited_log import LimitedLog
from engine.log_fields import note_request
from engine.serving import calls as calls_module
from engine.serving.calls import log_clients_that_left
from engine.serving.errors import InvalidRequest
from tests.engine.serving.fakes import Served, Stream, failure, until

RECOMMEND = "RecommenderService/Recommend"
STREAM = "RecommenderService/StreamRecommendations"


def calls(method: str, code: str) -> float:
    return metrics.CALLS.labels(method, code)._value.get()


def timed(method: str) -> float:
    samples = metrics.REQUEST_SECONDS.collect()[0].samples
    return sum(s.value for s in samples if s.name.endswith("_count") and s.labels["method"] == method)


def request(k: int = 5) -> RecommendRequest:
    return RecommendRequest(query=Query(user_id="u1", k=k))


async def test_counts_and_times_unary_calls_by_how_they_end(served: Served):
    before = [calls(RECOMMEND, "OK"), calls(RECOMMEND, "INVALID_ARGUMENT"), timed(RECOMMEND)]
    await served.recommender.Recommend(request())
    await failure(served.recommender.Recommend(request(k=-1)))
    after = [calls(RECOMMEND, "OK"), calls(RECOMMEND, "INVALID_ARGUMENT"), timed(RECOMMEND)]
    assert [now - was for now, was in zip(after, before, strict=True)] == [1, 1, 2]


async def test_an_unexpected_error_is_logged_once_and_told_without_its_text(served: Served, caplog):
    served.engine.lists = lambda query: {}["secret"]
    before = calls(RECOMMEND, "INTERNAL")
    assert await failure(served.recommender.Recommend(request())) == (
        grpc.StatusCode.INTERNAL,
        "the engine failed unexpectedly (KeyError)",
    )
    assert calls(RECOMMEND, "INTERNAL") == before + 1
    [record] = caplog.records
    assert record.getMessage() == "RecommenderService/Recommend failed: KeyError: 'secret'"
    assert "secret" in caplog.text
    assert (await served.model.GetStatus(GetStatusRequest())).failed_calls == 1


@pytest.mark.parametrize("given", ["app-17", None])
async def test_a_failed_call_returns_the_name_that_its_line_in_the_log_has(served: Served, caplog, given):
    served.engine.lists = lambda query: {}["secret"]
    caplog.handler.addFilter(note_request)
    try:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await served.recommender.Recommend(request(), metadata=(("x-request-id", given),) if given else None)
    finally:
        caplog.handler.removeFilter(note_request)  # The handler is that of all tests.
    trailing = dict(failed.value.trailing_metadata())
    [record] = caplog.records
    assert record.request_id == trailing["x-request-id"]
    assert given is None or record.request_id == given


@pytest.mark.parametrize(("timeout_s", "code"), [(0.3, "DEADLINE_EXCEEDED"), (None, "CANCELLED")])
async def test_tells_a_passed_deadline_from_a_client_that_left(served: Served, caplog, timeout_s, code):
    served.engine.hold = True
    before = calls(RECOMMEND, code)
    call = served.recommender.Recommend(request(), timeout=timeout_s)
    await until(lambda: bool(served.engine.asked), "the engine is asked")
    if timeout_s is None:
        call.cancel()
    await until(lambda: calls(RECOMMEND, code) == before + 1, f"the call is counted as {code}")
    assert (await served.model.GetStatus(GetStatusRequest())).failed_calls == 0
    assert not caplog.records


async def test_a_client_that_leaves_during_a_write_is_no_failure(served: Served, caplog):
    def leave(*_: object) -> None:
        raise grpc.aio.InternalError  # what gRPC raises from such a write

    before = calls(STREAM, "CANCELLED")
    stream = Stream(served)
    served.subscriptions.open = leave
    await stream.subscribe()
    await until(lambda: calls(STREAM, "CANCELLED") == before + 1, "the stream is counted")
    assert (await served.model.GetStatus(GetStatusRequest())).failed_calls == 0
    assert not caplog.records


async def test_a_client_that_leaves_before_it_is_told_of_its_error_is_no_failure(served: Served):
    class Left:
        async def abort(self, *_: object) -> None:
            raise grpc.aio.InternalError  # as above

        def invocation_metadata(self) -> tuple[()]:
            return ()

    async def refuse(*_: object) -> None:
        raise InvalidRequest("k must be positive")

    behavior = served.server.models._calls._observed(refuse, "RecommenderService/Recommend", timed=False)
    with pytest.raises(asyncio.CancelledError):
        await behavior(None, Left())


def test_an_answer_that_finds_no_client_is_one_line_for_many(caplog, monkeypatch):
    log = logging.getLogger("grpc._cython.cygrpc")
    monkeypatch.setattr(log, "filters", [])
    monkeypatch.setattr(calls_module, "_limited", LimitedLog(calls_module._log))
    log_clients_that_left()
    for _ in range(3):
        try:
            raise grpc.aio.InternalError
        except grpc.aio.InternalError:  # as gRPC does where it can't send an answer
            log.exception("ExecuteBatchError raised in core by servicer method [%s]", "/ousel.v1.EventService/Track")
    try:
        raise ValueError("a bug")
    except ValueError:
        log.exception("Unexpected [%s]", "ValueError")
    left, bug = caplog.records
    assert left.levelname == "WARNING" and left.exc_info is None
    assert left.getMessage().startswith("a client left before its answer could be sent (ExecuteBatchError")
    assert bug.exc_info is not None


async def test_streams_are_counted_at_their_end_and_not_timed(served: Served):
    before, before_timed = calls(STREAM, "CANCELLED"), timed(STREAM)
    stream = Stream(served)
    await stream.subscribe()
    await stream.list()
    assert calls(STREAM, "CANCELLED") == before
    stream.call.cancel()
    await until(lambda: calls(STREAM, "CANCELLED") == before + 1, "the stream is counted")
    assert timed(STREAM) == before_timed


async def test_health_checks_and_unknown_methods_are_not_counted(served: Served):
    await health_pb2_grpc.HealthStub(served.channel).Check(health_pb2.HealthCheckRequest())
    unknown = served.channel.unary_unary("/ousel.v1.RecommenderService/Guess")
    assert (await failure(unknown(b"")))[0] is grpc.StatusCode.UNIMPLEMENTED
    methods = {sample.labels["method"] for sample in metrics.CALLS.collect()[0].samples}
    assert not any("Health" in method or "Guess" in method for method in methods)
