import grpc
import pytest

from engine.model.weights import WeightsError
from engine.pipeline import NotFollowing, Overloaded, RollBackRefused, SnapshotsOff, StaleVersion
from engine.serving.errors import (
    CatchingUp,
    InvalidRequest,
    LogUnavailable,
    PushInProgress,
    ShuttingDown,
    SnapshotFailed,
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
        (SnapshotsOff("why"), grpc.StatusCode.FAILED_PRECONDITION),
        (SnapshotFailed("why"), grpc.StatusCode.INTERNAL),
        (NotFollowing("why"), grpc.StatusCode.UNAVAILABLE),
        (CatchingUp("why"), grpc.StatusCode.UNAVAILABLE),
        (PushInProgress("why"), grpc.StatusCode.ABORTED),
        (LogUnavailable("why"), grpc.StatusCode.UNAVAILABLE),
        (ShuttingDown("why"), grpc.StatusCode.UNAVAILABLE),
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
    assert status_of(InvalidRequest("why")).trailing_metadata == ()


def test_a_caller_without_time_for_another_try_is_told_not_to_make_one():
    assert dict(status_of(LogUnavailable("why", last=True)).trailing_metadata)["grpc-retry-pushback-ms"] == "-1"


@pytest.mark.parametrize("kind", [LogUnavailable, CatchingUp, NotFollowing, ShuttingDown, TimeoutError])
def test_codes_that_grpc_itself_uses_say_that_an_engine_speaks(kind):
    assert dict(status_of(kind("why")).trailing_metadata)["ousel-said-by"] == "engine"
