import grpc
import pytest
from ousel import (
    Client,
    DeadlineExceeded,
    InvalidArgument,
    OuselError,
    OutOfRange,
    ResourceExhausted,
    StreamEnded,
    Unavailable,
)
from ousel.errors import from_call


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidArgument),
        (grpc.StatusCode.OUT_OF_RANGE, OutOfRange),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ResourceExhausted),
        (grpc.StatusCode.FAILED_PRECONDITION, OuselError),
        (grpc.StatusCode.INTERNAL, OuselError),
    ],
)
def test_a_failed_call_raises_the_kind_of_its_status_with_the_engines_words(engine, client, code, kind):
    engine.failures.append((code, "query.k must be 1..1000, got 0"))
    engine.pushback_ms = -1  # by which a server says: don't come back
    with pytest.raises(OuselError) as caught:
        client.recommend("ann", k=0)
    assert type(caught.value) is kind
    assert caught.value.code == code.name
    assert str(caught.value) == "query.k must be 1..1000, got 0"
    assert len(engine.requests) == 1  # none of these is retried


def test_no_engine_at_the_address_says_where_and_what_to_check(closed_port):
    with Client(f"127.0.0.1:{closed_port}") as client, pytest.raises(Unavailable) as caught:
        client.recommend("ann")
    assert caught.value.code == "UNAVAILABLE"
    assert f"127.0.0.1:{closed_port}" in str(caught.value)
    assert "Connection refused" in str(caught.value)
    assert "check that it is running" in str(caught.value)


def test_a_call_without_answer_ends_at_its_time_limit(engine, client):
    engine.hang = True
    with pytest.raises(DeadlineExceeded, match=r"within 0\.1 s"):
        client.recommend("ann", timeout_s=0.1)
    with Client(engine.address, timeout_s=0.2) as impatient, pytest.raises(DeadlineExceeded, match=r"within 0\.2 s"):
        impatient.status()


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.recommend("ann"),
        lambda c: c.track("apple", "ann"),
        lambda c: c.status(),
        lambda c: c.forget_user("ann"),
        lambda c: c.export_user("ann"),
        lambda c: c.get_digest(),
        lambda c: c.take_snapshot(),
    ],
)
def test_unary_calls_are_retried_while_the_engine_is_unavailable(engine, client, call):
    engine.failures.extend([(grpc.StatusCode.UNAVAILABLE, "catching up")] * 2)
    call(client)
    assert len(engine.requests) == 3
    assert engine.requests[0] == engine.requests[1] == engine.requests[2]  # the event_id too: it is folded once


def test_an_overloaded_engine_is_asked_again_when_it_says_so(engine, client):
    engine.failures.extend([(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls wait")] * 2)
    engine.pushback_ms = 1
    assert client.recommend("ann").items
    assert len(engine.requests) == 3


def test_an_overloaded_engine_that_asks_for_a_long_pause_is_left_alone_for_so_long(engine, client):
    engine.failures.append((grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls wait"))
    engine.pushback_ms = 60_000
    with pytest.raises(DeadlineExceeded):
        client.track("apple", "ann", timeout_s=1.5)  # without the hint the next try would come within 0.1 s
    assert len(engine.requests) == 1


def test_an_engine_that_refuses_nearly_all_calls_is_not_asked_four_times_as_often(engine, client):
    engine.failures.extend([(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls wait")] * 1000)
    engine.pushback_ms = 1
    for _ in range(100):
        with pytest.raises(ResourceExhausted):
            client.recommend("ann")
    assert len(engine.requests) < 200


@pytest.mark.parametrize(
    ("code", "kind"),
    [(grpc.StatusCode.UNAVAILABLE, Unavailable), (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded)],
)
def test_a_reason_that_the_engine_gives_is_told_in_place_of_a_guess_about_the_address(engine, client, code, kind):
    engine.failures.append((code, "Kafka at kafka:9092 did not acknowledge the event"))
    engine.by_engine, engine.pushback_ms = True, -1
    with pytest.raises(kind) as failed:
        client.track("apple", "ann")
    assert str(failed.value) == (
        f"Kafka at kafka:9092 did not acknowledge the event (says the engine at {engine.address})"
    )
    assert len(engine.requests) == 1  # A negative hint means that there is no time for another try.


def test_a_request_that_grpc_finds_too_large_is_the_callers_to_change(engine, client):
    with pytest.raises(InvalidArgument, match=r"larger than the engine at .* takes"):
        client.track("apple", "ann", attributes={"text": "x" * 5_000_000})
    assert engine.requests == []


def test_an_answer_that_is_too_large_is_not_said_to_be_the_callers_fault(engine, client):
    engine.export.subjects.add(session_id="x" * (64 * 2**20))  # as much as the client takes, and a little more
    with pytest.raises(OuselError, match=r"the answer of the engine at .* is larger than this client takes") as failed:
        client.export_user("ann", timeout_s=30)
    assert type(failed.value) is OuselError


def test_a_call_that_the_engine_ends_at_its_time_limit_has_had_no_answer_in_time():
    class Ended:
        code, details, trailing_metadata = (lambda self: grpc.StatusCode.CANCELLED), (lambda self: "CANCELLED"), dict

    assert type(from_call(Ended(), "a:1", 5.0, took_s=4.95)) is DeadlineExceeded
    assert type(from_call(Ended(), "a:1", 5.0, took_s=1.0)) is StreamEnded
    assert type(from_call(Ended(), "a:1", None, took_s=99.0)) is StreamEnded


def test_a_write_that_fails_before_its_call_has_a_status_is_a_lost_connection_whatever_code_grpc_makes_up():
    class Lost:
        trailing_metadata = dict

        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.INTERNAL

        def details(self) -> str:
            return "Internal error from Core"

    failed = from_call(Lost(), "a:1", None)
    assert type(failed) is Unavailable
    assert "a:1 is not available (the connection was lost in a write)" in str(failed)
