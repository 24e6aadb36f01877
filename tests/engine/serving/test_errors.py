from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from engine.generations import RollBackRefused, StaleVersion
from engine.model.weights import WeightsError
from engine.pipeline import NotFollowing, Overloaded, SnapshotsOff
from engine.registry.errors import NoSuchModel, PushOvertaken, RegistryError, VersionPinned
from engine.security.errors import OverLimit, RoleMissing, TooLarge
from engine.serving.errors import (
    KINDS,
    CatchingUp,
    InvalidRequest,
    LogUnavailable,
    NoRegistry,
    PushInProgress,
    ShuttingDown,
    SnapshotFailed,
    StreamTooOld,
    status_of,
)
from engine.waiting import NoSuchRecord


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest("why"), grpc.StatusCode.INVALID_ARGUMENT),
        (WeightsError("why"), grpc.StatusCode.INVALID_ARGUMENT),
        (NoSuchRecord("why"), grpc.StatusCode.OUT_OF_RANGE),
        (StaleVersion("why"), grpc.StatusCode.FAILED_PRECONDITION),
        (RollBackRefused("why"), grpc.StatusCode.FAILED_PRECONDITION),
        (VersionPinned("why"), grpc.StatusCode.FAILED_PRECONDITION),
        (NoRegistry("why"), grpc.StatusCode.FAILED_PRECONDITION),
        (NoSuchModel("why"), grpc.StatusCode.NOT_FOUND),
        (PushOvertaken("why"), grpc.StatusCode.ABORTED),
        (RegistryError("why"), grpc.StatusCode.UNAVAILABLE),
        (SnapshotsOff("why"), grpc.StatusCode.FAILED_PRECONDITION),
        (SnapshotFailed("why"), grpc.StatusCode.INTERNAL),
        (NotFollowing("why"), grpc.StatusCode.UNAVAILABLE),
        (CatchingUp("why"), grpc.StatusCode.UNAVAILABLE),
        (PushInProgress("why"), grpc.StatusCode.ABORTED),
        (LogUnavailable("why"), grpc.StatusCode.UNAVAILABLE),
        (ShuttingDown("why"), grpc.StatusCode.UNAVAILABLE),
        (StreamTooOld("why"), grpc.StatusCode.UNAVAILABLE),
        (Overloaded("why"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (TimeoutError("why"), grpc.StatusCode.DEADLINE_EXCEEDED),
    ],
)
def test_says_why_with_the_code_that_fits(error, code):
    status = status_of(error)
    assert (status.code, status.details) == (code, "why")


def test_hides_the_text_of_an_unexpected_error():
    status = status_of(KeyError("secret"))
    assert status.code is grpc.StatusCode.INTERNAL
    assert status.details == "the engine failed unexpectedly (KeyError)"


@pytest.mark.parametrize(("error", "least_ms"), [(Overloaded("why", 100), 100), (LogUnavailable("why"), 500)])
def test_hints_when_to_come_back_where_the_engine_or_the_log_has_too_much_to_do(error, least_ms):
    hints = [dict(status_of(error).trailing_metadata) for _ in range(50)]
    assert all("grpc-retry-pushback-ms" in hint for hint in hints)  # the key that stock clients obey
    waits_ms = [int(hint["grpc-retry-pushback-ms"]) for hint in hints]
    assert least_ms <= min(waits_ms) < max(waits_ms) <= 2 * least_ms  # they do not all come back at once
    assert "grpc-retry-pushback-ms" not in dict(status_of(InvalidRequest("why")).trailing_metadata)


def test_a_caller_without_time_for_another_try_is_told_not_to_make_one():
    assert dict(status_of(LogUnavailable("why", last=True)).trailing_metadata)["grpc-retry-pushback-ms"] == "-1"


def detail(error: Exception, kind: type[Any]) -> Any:
    """The detail of a kind that goes with an error; None where none does."""
    packed = dict(status_of(error).trailing_metadata)["grpc-status-details-bin"]
    for one in status_pb2.Status.FromString(packed).details:
        found = kind()
        if one.Unpack(found):
            return found
    return None


# Errors that are made of more than their text.
MADE = {RoleMissing: ("a push", ("push",)), TooLarge: ("message", "why"), OverLimit: ("rate", "why")}


@pytest.mark.parametrize("kind", KINDS, ids=[kind.reason for kind in KINDS])
def test_every_error_has_a_reason_of_its_own_for_programs(kind):
    error = kind.error(*MADE.get(kind.error, ("why",)))
    info = detail(error, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == (kind.reason, "ousel")
    status = status_pb2.Status.FromString(dict(status_of(error).trailing_metadata)["grpc-status-details-bin"])
    assert (status.code, status.message) == (kind.code.value[0], str(error))
    assert [one.reason for one in KINDS].count(kind.reason) == 1


def test_an_unexpected_error_has_a_reason_too():
    assert detail(KeyError("secret"), error_details_pb2.ErrorInfo).reason == "UNEXPECTED"


def test_bad_input_names_its_field():
    wrong = InvalidRequest("k must be within 1..5, got 7", "query.k")
    (violation,) = detail(wrong, error_details_pb2.BadRequest).field_violations
    assert (violation.field, violation.description) == ("query.k", "k must be within 1..5, got 7")
    assert detail(wrong, error_details_pb2.ErrorInfo).metadata == {"field": "query.k"}
    assert detail(CatchingUp("why"), error_details_pb2.BadRequest) is None


@pytest.mark.parametrize("error", [Overloaded("why", 100), LogUnavailable("why"), ShuttingDown(""), StreamTooOld("")])
def test_the_hint_when_to_come_back_stands_in_both_places(error):
    trailing = dict(status_of(error).trailing_metadata)
    packed = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    retry = error_details_pb2.RetryInfo()
    assert packed.details[-1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == int(trailing["grpc-retry-pushback-ms"])
    assert detail(InvalidRequest("why"), error_details_pb2.RetryInfo) is None
    assert detail(LogUnavailable("why", last=True), error_details_pb2.RetryInfo) is None


def test_a_long_text_is_cut_so_that_the_status_reaches_its_caller():
    long = InvalidRequest("x" * 100_000, "query.k")
    assert len(dict(status_of(long).trailing_metadata)["grpc-status-details-bin"]) < 4096


@pytest.mark.parametrize("kind", [LogUnavailable, CatchingUp, NotFollowing, ShuttingDown, TimeoutError])
def test_codes_that_grpc_itself_uses_say_that_an_engine_speaks(kind):
    assert dict(status_of(kind("why")).trailing_metadata)["ousel-said-by"] == "engine"
