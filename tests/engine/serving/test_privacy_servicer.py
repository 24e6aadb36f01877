import time

import grpc
import pytest
from ousel.v1 import event_pb2
from ousel.v1.privacy_service_pb2 import (
    ExportUserRequest,
    ForgetUserRequest,
    HeldSubject,
    RememberedEvent,
    RememberedRelation,
)

from engine.config import Config
from engine.events.codec import validate_event
from engine.serving.server import Server
from engine.state import export
from engine.state.subjects import subject_key
from tests.engine.serving.fakes import FakeEngine, Served, Stream, failure, until

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def held(partition: int = 0, session_id: str = "", *history: export.RememberedEvent) -> export.Subject:
    return export.Subject(partition, session_id, history, len(history), ())


def written(served: Served) -> list[tuple[str, str]]:
    """user_id and session_id of every record, in order."""
    assert all(event.forget for event in served.log.events)
    return [(event.user_id, event.session_id) for event in served.log.events]


# -- ForgetUser ------------------------------------------------------------------------------------------------------


async def test_writes_to_every_partition_that_a_user_is_forgotten(served: Served, config: Config):
    before_ms = time.time_ns() // 1_000_000
    served.engine.held = (held(1),)
    answer = await served.privacy.ForgetUser(ForgetUserRequest(user_id="ann"))
    assert served.engine.exported == ["ann"]
    assert written(served) == [("ann", "")] * 3
    assert [(p.topic, p.partition, p.offset) for p in answer.positions] == [
        ("ousel.events", 0, 0),
        ("ousel.events", 1, 1),
        ("ousel.events", 2, 2),
    ]
    assert [(subject.user_id, subject.session_id) for subject in answer.subjects] == [("ann", "")]
    assert list(answer.partitions) == [0, 2]
    now_ms = time.time_ns() // 1_000_000
    for event in served.log.events:
        assert validate_event(event, now_ms, config.events, may_forget=True) is None
        assert before_ms <= event.time.ToMilliseconds() <= now_ms


async def test_forgets_the_linked_anonymous_sessions_too_each_once(served: Served):
    served.engine.held = (held(0), held(1), held(0, "tab-2"), held(1, "tab-1"), held(1, "tab-2"))
    answer = await served.privacy.ForgetUser(ForgetUserRequest(user_id="ann"))
    assert written(served) == [("ann", "")] * 3 + [("", "tab-1")] * 3 + [("", "tab-2")] * 3
    assert [(subject.user_id, subject.session_id) for subject in answer.subjects] == [
        ("ann", ""),
        ("", "tab-1"),
        ("", "tab-2"),
    ]
    assert len(answer.positions) == 9
    assert len({event.event_id for event in served.log.events}) == 3


async def test_forgets_an_anonymous_session(served: Served):
    served.engine.held = (held(0, "tab-1"),)
    answer = await served.privacy.ForgetUser(ForgetUserRequest(session_id="tab-1"))
    assert served.engine.exported == [subject_key("", "tab-1")]
    assert written(served) == [("", "tab-1")] * 3
    assert [(subject.user_id, subject.session_id) for subject in answer.subjects] == [("", "tab-1")]


async def test_forgets_whom_this_engine_does_not_hold_and_repeats_with_an_id_of_its_own(served: Served):
    for _ in range(2):
        await served.privacy.ForgetUser(ForgetUserRequest(user_id="ann"))
    assert written(served) == [("ann", "")] * 6
    # With the same id, the second would be taken for a producer's repeat, and skipped.
    assert len({event.event_id for event in served.log.events}) == 2


async def test_answers_only_once_the_log_has_every_record(served: Served):
    served.log.hold = True
    call = served.privacy.ForgetUser(ForgetUserRequest(user_id="ann"))
    await until(lambda: len(served.log.acknowledgements) == 3, "the records are sent")
    for partition in (0, 2):
        position = event_pb2.LogPosition(topic="t", partition=partition, offset=7)
        served.log.acknowledgements[partition].set_result(position)
    await served.privacy.ExportUser(ExportUserRequest(user_id="bob"))  # the server's loop has been round since
    assert not call.done()
    served.log.acknowledgements[1].set_result(event_pb2.LogPosition(topic="t", partition=1, offset=5))
    assert [(p.partition, p.offset) for p in (await call).positions] == [(0, 7), (1, 5), (2, 7)]


async def test_fails_when_one_partition_does_not_take_its_record(served: Served):
    served.log.hold = True
    call = served.privacy.ForgetUser(ForgetUserRequest(user_id="ann"))
    await until(lambda: len(served.log.acknowledgements) == 3, "the records are sent")
    served.log.acknowledgements[0].set_result(event_pb2.LogPosition())
    served.log.acknowledgements[2].set_exception(ConnectionError("the broker is away"))
    assert await failure(call) == (
        grpc.StatusCode.UNAVAILABLE,
        "the records that forget could not be written to Kafka at 127.0.0.1:9092: the broker is away",
    )


async def test_says_why_the_log_takes_nothing(served: Served):
    served.log.refuse = ConnectionError("not connected yet")
    assert await failure(served.privacy.ForgetUser(ForgetUserRequest(user_id="ann"))) == (
        grpc.StatusCode.UNAVAILABLE,
        "the records that forget could not be written to Kafka at 127.0.0.1:9092: not connected yet",
    )


@pytest.mark.parametrize("slow", ["engine", "log"])
async def test_gives_up_when_the_callers_deadline_passes(served: Served, slow):
    getattr(served, slow).hold = True
    code, _ = await failure(served.privacy.ForgetUser(ForgetUserRequest(user_id="ann"), timeout=0.3))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    if slow == "engine":
        await until(served.engine.exports[0].cancelled, "the question is taken back")
        assert served.log.events == []


async def test_says_so_where_there_is_no_log(config: Config):
    engine = FakeEngine()
    server = Server(config, engine, engine.subscriptions, None)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        served = Served(server, engine, None, channel)
        assert await failure(served.privacy.ForgetUser(ForgetUserRequest(user_id="ann"))) == (
            grpc.StatusCode.UNAVAILABLE,
            "this engine has no log to write events to",
        )
    await server.stop(0)


async def test_an_event_that_forgets_is_refused_on_a_stream(served: Served):
    stream = Stream(served)
    await stream.subscribe()
    await stream.list()
    await stream.send(forget=True)
    assert await stream.end() == (INVALID, "event.forget must be false: call PrivacyService.ForgetUser")
    assert served.log.events == []


# -- ExportUser ------------------------------------------------------------------------------------------------------


async def test_exports_what_every_partition_holds(served: Served):
    cart = export.RememberedEvent("apple", 2, 1_700_000_000_123, 2.5, 6)
    view = export.RememberedEvent("bread", 0, 0, 1.0, 65_535)
    served.engine.held = (
        export.Subject(
            2,
            "",
            (cart, view),
            7,
            ("apple", "kiwi"),
            (export.RememberedRelation("bob", 1, 1_700_000_000_123, 2.5),),
            3,
        ),
        held(0, "tab-1"),
    )
    answer = await served.privacy.ExportUser(ExportUserRequest(user_id="ann"))
    assert served.engine.exported == ["ann"]
    assert answer.known
    assert list(answer.partitions) == [0, 2]
    first, second = answer.subjects
    kinds = list(Config().events.kinds)
    assert first == HeldSubject(
        partition=2,
        history=[
            RememberedEvent(
                item_id="apple", kind=kinds[2], value=2.5, session=6,
                time={"seconds": 1_700_000_000, "nanos": 123_000_000},
            ),
            RememberedEvent(item_id="bread", kind=kinds[0], value=1.0, session=65_535, time={}),
        ],
        sessions=7,
        named_by_item_ids=["apple", "kiwi"],
        relations=[
            RememberedRelation(
                user_id="bob", kind="friend", value=2.5, time={"seconds": 1_700_000_000, "nanos": 123_000_000}
            )
        ],
        named_by_users=3,
    )  # fmt: skip
    assert second == HeldSubject(partition=0, session_id="tab-1")
    assert served.log.events == []


async def test_exports_an_anonymous_session(served: Served):
    await served.privacy.ExportUser(ExportUserRequest(session_id="tab-1"))
    assert served.engine.exported == [subject_key("", "tab-1")]


async def test_an_export_of_nothing_is_empty_and_says_where_was_looked(served: Served):
    answer = await served.privacy.ExportUser(ExportUserRequest(user_id="ann"))
    assert (answer.known, len(answer.subjects), list(answer.partitions)) == (False, 0, [0, 2])


async def test_an_export_ends_at_its_deadline_and_leaves_no_question_behind(served: Served):
    served.engine.hold = True
    code, _ = await failure(served.privacy.ExportUser(ExportUserRequest(user_id="ann"), timeout=0.2))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(served.engine.exports[0].cancelled, "the question is taken back")


# -- both ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "request_type"), [("ForgetUser", ForgetUserRequest), ("ExportUser", ExportUserRequest)]
)
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "user_id or session_id must be set, got neither"),
        (
            {"user_id": "ann", "session_id": "tab-1"},
            "only one of user_id and session_id may be set, got 'ann' and 'tab-1'",
        ),
        ({"user_id": "x" * 33}, f"user_id must have at most 32 bytes in UTF-8, got 33: {'x' * 33!r}"),
        ({"session_id": "a\0"}, "session_id must not have control characters, got 'a\\x00'"),
    ],
)
async def test_refuses_a_subject_that_breaks_a_rule(served: Served, method, request_type, fields, message):
    assert await failure(getattr(served.privacy, method)(request_type(**fields))) == (INVALID, message)
    assert served.engine.exported == []
    assert served.log.events == []


@pytest.mark.parametrize(
    ("method", "request_type"), [("ForgetUser", ForgetUserRequest), ("ExportUser", ExportUserRequest)]
)
async def test_is_unavailable_while_the_engine_still_catches_up(served: Served, method, request_type):
    served.engine.caught_up = False
    code, message = await failure(getattr(served.privacy, method)(request_type(user_id="ann")))
    assert (code, message[:33]) == (grpc.StatusCode.UNAVAILABLE, "the engine is still catching up w")
    assert served.log.events == []
