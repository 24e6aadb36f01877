"""The errors of calls, and the gRPC status that each ends with."""

from __future__ import annotations

import random
from dataclasses import dataclass

import grpc

from engine.failures import is_of_the_machine
from engine.model.weights import WeightsError
from engine.pipeline import NotFollowing, Overloaded, RollBackRefused, SnapshotsOff, StaleVersion
from engine.security.errors import RoleMissing, TooLarge, Unauthenticated
from engine.waiting import NoSuchRecord

# The one key of trailing metadata that stock gRPC clients obey as a server's wish (gRFC A6). It says how long to wait
# before the next try.
RETRY_PUSHBACK = "grpc-retry-pushback-ms"
_NO_RETRY = ((RETRY_PUSHBACK, "-1"),)
_LOG_RETRY_MS = 500
# gRPC itself ends calls by the same codes where it reaches no engine. So ours say who speaks, and a client can show the
# reason in place of a guess about the address.
_OURS = (("ousel-said-by", "engine"),)
_SPREAD = 2.0  # hints are drawn up to so many times their least, or callers refused together would return together


class InvalidRequest(ValueError):
    """The caller broke a rule; the message names the field, what it must be and what it was."""


class LogUnavailable(RuntimeError):
    """An event could not be written to the log.

    Attributes:
        last: whether the caller has no time for another try; it would end by its own deadline and not see the reason.
    """

    def __init__(self, message: str, *, last: bool = False) -> None:
        super().__init__(message)
        self.last = last


class CatchingUp(RuntimeError):
    """The engine has not folded the whole log yet, and so does not know yet what belongs to a user."""


class SnapshotFailed(RuntimeError):
    """A snapshot could not be written; the ones before it still count."""


class PushInProgress(RuntimeError):
    """Another push is being received or installed."""


class StreamOver(RuntimeError):
    """The stream has ended; nobody waits for its next list."""


class ShuttingDown(RuntimeError):
    """The engine is stopping; another one, or this one later, will answer."""


@dataclass(frozen=True)
class CallStatus:
    """How a failed call ends."""

    code: grpc.StatusCode
    details: str
    trailing_metadata: tuple[tuple[str, str], ...] = ()


_CODES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (InvalidRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (Unauthenticated, grpc.StatusCode.UNAUTHENTICATED),
    (RoleMissing, grpc.StatusCode.PERMISSION_DENIED),
    (TooLarge, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (WeightsError, grpc.StatusCode.INVALID_ARGUMENT),
    (NoSuchRecord, grpc.StatusCode.OUT_OF_RANGE),
    (StaleVersion, grpc.StatusCode.FAILED_PRECONDITION),
    (RollBackRefused, grpc.StatusCode.FAILED_PRECONDITION),
    (SnapshotsOff, grpc.StatusCode.FAILED_PRECONDITION),
    (SnapshotFailed, grpc.StatusCode.INTERNAL),
    (PushInProgress, grpc.StatusCode.ABORTED),
    (NotFollowing, grpc.StatusCode.UNAVAILABLE),
    (CatchingUp, grpc.StatusCode.UNAVAILABLE),
    (ShuttingDown, grpc.StatusCode.UNAVAILABLE),
)

# These say that the engine failed its callers; the others say that a caller erred or left.
FAILURES = frozenset(
    {
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)


def status_of(error: Exception) -> CallStatus:
    """The status for an error; INTERNAL where it is not one that a call may end with."""
    if isinstance(error, Overloaded):
        return CallStatus(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error), _hint(error.retry_after_ms))
    if isinstance(error, TooLarge):
        return CallStatus(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error), _NO_RETRY)
    if isinstance(error, LogUnavailable):
        hint = _NO_RETRY if error.last else _hint(_LOG_RETRY_MS)
        return CallStatus(grpc.StatusCode.UNAVAILABLE, str(error), hint + _OURS)
    if isinstance(error, TimeoutError):
        return CallStatus(grpc.StatusCode.DEADLINE_EXCEEDED, str(error) or "the call's deadline passed", _OURS)
    for kind, code in _CODES:
        if isinstance(error, kind):
            return CallStatus(code, str(error), _OURS if code is grpc.StatusCode.UNAVAILABLE else ())
    # The cause is in the log, with its traceback: a caller can't do anything with it.
    return CallStatus(grpc.StatusCode.INTERNAL, f"the engine failed unexpectedly ({type(error).__name__})")


def is_expected(error: BaseException) -> bool:
    """Whether an error is of a kind that happens without a bug, so that its text says all there is to say."""
    known = isinstance(error, (Overloaded, LogUnavailable)) or any(isinstance(error, kind) for kind, _ in _CODES)
    return known or is_of_the_machine(error)


def _hint(least_ms: int) -> tuple[tuple[str, str], ...]:
    return ((RETRY_PUSHBACK, str(round(least_ms * random.uniform(1, _SPREAD)))),)
