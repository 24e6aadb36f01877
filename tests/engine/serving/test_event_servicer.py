import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from ousel.v1 import event_pb2
from ousel.v1.event_service_pb2 import TrackRequest

from engine.config import Config, KafkaConfig
from engine.events.producer import RecordTooLargeError
from engine.serving.server import Server
from tests.engine.serving.fakes import FakeEngine, FakeLog, Served, failure, until


def request(**fields: object) -> TrackRequest:
    return TrackRequest(event=event_pb2.Event(**{"user_id": "u1", "item_id": "i1", **fields}))


async def test_answers_where_the_log_put_the_event(served: Served):
    sent = request(event_id="e1", session_id="s1", kind="purchase", value=2, attributes={"store": "7"})
    sent.event.time.FromMilliseconds(1_700_000_000_123)
    answer = await served.events.Track(sent)
    assert answer.event_id == "e1"
    assert (answer.position.topic, answer.position.partition, answer.position.offset) == ("ousel.events", 2, 0)
    assert served.log.events == [sent.event]


async def test_gives_an_event_its_id_and_time(served: Served):
    before_ms = time.time_ns() // 1_000_000
    first = await served.events.Track(request())
    second = await served.events.Track(request())
    after_ms = time.time_ns() // 1_000_000
    written = served.log.events
    assert [event.event_id for event in written] == [first.event_id, second.event_id]
    assert first.event_id != second.event_id
    assert len(first.event_id) == 32
    assert all(before_ms <= event.time.ToMilliseconds() <= after_ms for event in written)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"item_id": ""}, "event.item_id must not be empty, got ''"),
        ({"user_id": ""}, "event.user_id or session_id must be set, got neither"),
        ({"user_id": "x" * 33}, f"event.user_id must have at most 32 bytes in UTF-8, got 33: {'x' * 33!r}"),
        ({"item_id": "a\0"}, "event.item_id must not have control characters, got 'a\\x00'"),
        ({"event_id": "x" * 33}, f"event.event_id must have at most 32 bytes in UTF-8, got 33: {'x' * 33!r}"),
        ({"kind": "stare"}, "event.kind must be one of"),
        ({"value": float("nan")}, "event.value must be a finite number >= 0, got nan"),
        ({"forget": True}, "event.forget must be false: call PrivacyService.ForgetUser"),
        ({"forget": True, "item_id": ""}, "event.forget must be false: call PrivacyService.ForgetUser"),
        ({"time": {"seconds": 99_999_999_999}}, "event.time must lie at most 86400 s"),
    ],
)
async def test_refuses_an_event_that_breaks_a_rule(served: Served, fields, message):
    code, got = await failure(served.events.Track(request(**fields)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert got.startswith(message)
    assert served.log.events == []


async def test_answers_only_once_the_log_has_the_event(served: Served):
    served.log.hold = True
    call = served.events.Track(request())
    await until(lambda: bool(served.log.acknowledgements), "the event is sent")
    assert not call.done()
    served.log.acknowledgements[0].set_result(event_pb2.LogPosition(topic="t", partition=1, offset=5))
    assert (await call).position == event_pb2.LogPosition(topic="t", partition=1, offset=5)


@pytest.mark.parametrize("when", ["failure", "refuse"])
async def test_says_why_the_log_did_not_take_the_event(served: Served, when):
    setattr(served.log, when, ConnectionError("the broker is away"))
    assert await failure(served.events.Track(request())) == (
        grpc.StatusCode.UNAVAILABLE,
        "the event could not be written to Kafka at 127.0.0.1:9092: the broker is away",
    )


async def test_gives_up_when_the_callers_deadline_passes(served: Served):
    served.log.hold = True
    code, _ = await failure(served.events.Track(request(), timeout=0.3))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not served.log.acknowledgements[0].cancelled()


@asynccontextmanager
async def serving(config: Config, log: FakeLog | None) -> AsyncIterator[Served]:
    engine = FakeEngine()
    server = Server(config, engine, engine.subscriptions, log)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Served(server, engine, log, channel)
    await server.stop(0)


async def test_gives_up_on_a_log_that_stays_silent(config: Config):
    impatient = config.model_copy(update={"kafka": KafkaConfig(request_timeout_ms=100)})
    log = FakeLog()
    log.hold = True
    async with serving(impatient, log) as served:
        for timeout_s in (None, 5):
            assert await failure(served.events.Track(request(), timeout=timeout_s)) == (
                grpc.StatusCode.UNAVAILABLE,
                "Kafka at 127.0.0.1:9092 did not acknowledge the event within 0.1 s: check that it runs. It may still"
                " be written, so repeat it with the same event_id",
            )


async def test_names_kafka_before_the_callers_own_deadline_passes(served: Served):
    """A caller whose deadline comes first learns no reason, and takes the engine for dead."""
    served.log.hold = True
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await served.events.Track(request(), timeout=2)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "Kafka at 127.0.0.1:9092 did not acknowledge the event within 1." in str(error.value.details())
    assert dict(error.value.trailing_metadata())["grpc-retry-pushback-ms"] == "-1"  # There is no time for another try.


async def test_a_record_that_is_too_large_breaks_a_rule(served: Served):
    served.log.failure = RecordTooLargeError("of 3000000 bytes, more than topic 'ousel.events' takes")
    assert await failure(served.events.Track(request())) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "the event must be smaller: it makes a record of 3000000 bytes, more than topic 'ousel.events' takes",
    )


async def test_says_so_where_there_is_no_log(config: Config):
    async with serving(config, None) as served:
        assert await failure(served.events.Track(request())) == (
            grpc.StatusCode.UNAVAILABLE,
            "this engine has no log to write events to",
        )


async def test_writes_relations_and_says_which_rule_one_breaks(served: Served):
    fields = [{"user_id": "ann", "target_user_id": "bob"}, {"item_id": "apple", "entity_id": "Fruit", "ends": True}]
    for one in fields:
        await served.events.Track(TrackRequest(event=event_pb2.Event(**one)))
    written = [(e.user_id, e.target_user_id, e.item_id, e.entity_id, e.ends) for e in served.log.events]
    assert written == [("ann", "bob", "", "", False), ("", "", "apple", "Fruit", True)]
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await served.events.Track(TrackRequest(event=event_pb2.Event(user_id="ann", target_user_id="ann")))
    assert error.value.details() == "event.target_user_id must be another user than user_id, got 'ann'"
    assert len(served.log.events) == 2
