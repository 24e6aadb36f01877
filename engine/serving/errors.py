"""The errors of calls, and the gRPC status that each ends with."""

from __future__ import annotations

import random
from dataclasses import dataclass

import grpc
from ousel.v1 import recommender_service_pb2

from engine.failures import is_of_the_machine
from engine.generations import RollBackRefused, StaleVersion
from engine.model.weights import WeightsError
from engine.pipeline import NotFollowing, Overloaded, SnapshotsOff
from engine.registry.errors import NoSuchModel, PushOvertaken, RegistryError, VersionPinned
from engine.security.errors import OverLimit, RoleMissing, TooLarge, Unauthenticated
from engine.serving.details import DETAILS_KEY, packed
from engine.waiting import NoSuchRecord

# The one key of trailing metadata that stock gRPC clients obey as a server's wish (gRFC A6). It says how long to wait
# before the next try.
RETRY_PUSHBACK = "grpc-retry-pushback-ms"
_NO_RETRY_MS = -1
_LOG_RETRY_MS = 500
_ELSEWHERE_MS = 50  # until another engine, or another connection, has been found
# gRPC itself ends calls by the same codes where it reaches no engine. So ours say who speaks, and a client can show the
# reason in place of a guess about the address.
_OURS = (("ousel-said-by", "engine"),)
_SPREAD = 2.0  # hints are drawn up to so many times their least, or callers refused together would return together


class InvalidRequest(ValueError):
    """The caller broke a rule; the message names the field, what it must be and what it was.

    Attributes:
        field: its path from the request on, such as `query.k`; "" where the request as a whole is wrong.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


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
    """Another push is being received or stored."""


class NoRegistry(RuntimeError):
    """The engine has no registry, so that nothing can be done with models."""


class StreamOver(RuntimeError):
    """The stream has ended; nobody waits for its next list."""


SHUTTING = "the engine is shutting down"


class ShuttingDown(RuntimeError):
    """The engine is stopping; another one, or this one later, will answer."""


class StreamTooOld(RuntimeError):
    """The stream has been open for as long as one may be; opened again, it may go to another engine."""


@dataclass(frozen=True)
class CallStatus:
    """How a failed call ends."""

    code: grpc.StatusCode
    details: str
    trailing_metadata: tuple[tuple[str, str | bytes], ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of error: the code that a call ends with, and the reason that programs may rely on."""

    error: type[Exception]
    code: grpc.StatusCode
    reason: str


# The one table of them; the first that fits counts. docs/errors.md explains each reason to callers.
KINDS = (
    Kind(InvalidRequest, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
    Kind(Unauthenticated, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    Kind(RoleMissing, grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING"),
    Kind(TooLarge, grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_LARGE"),
    Kind(OverLimit, grpc.StatusCode.RESOURCE_EXHAUSTED, "OVER_LIMIT"),
    Kind(WeightsError, grpc.StatusCode.INVALID_ARGUMENT, "WEIGHTS_REFUSED"),
    Kind(NoSuchRecord, grpc.StatusCode.OUT_OF_RANGE, "NO_SUCH_RECORD"),
    Kind(StaleVersion, grpc.StatusCode.FAILED_PRECONDITION, "VERSION_NOT_NEWER"),
    Kind(RollBackRefused, grpc.StatusCode.FAILED_PRECONDITION, "ROLL_BACK_REFUSED"),
    Kind(VersionPinned, grpc.StatusCode.FAILED_PRECONDITION, "VERSION_PINNED"),
    Kind(NoRegistry, grpc.StatusCode.FAILED_PRECONDITION, "NO_REGISTRY"),
    Kind(NoSuchModel, grpc.StatusCode.NOT_FOUND, "NO_SUCH_MODEL"),
    Kind(SnapshotsOff, grpc.StatusCode.FAILED_PRECONDITION, "SNAPSHOTS_OFF"),
    Kind(SnapshotFailed, grpc.StatusCode.INTERNAL, "SNAPSHOT_FAILED"),
    Kind(PushInProgress, grpc.StatusCode.ABORTED, "PUSH_IN_PROGRESS"),
    Kind(PushOvertaken, grpc.StatusCode.ABORTED, "PUSH_OVERTAKEN"),
    Kind(RegistryError, grpc.StatusCode.UNAVAILABLE, "REGISTRY_UNAVAILABLE"),
    Kind(NotFollowing, grpc.StatusCode.UNAVAILABLE, "NOT_FOLLOWING"),
    Kind(CatchingUp, grpc.StatusCode.UNAVAILABLE, "CATCHING_UP"),
    Kind(ShuttingDown, grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN"),
    Kind(StreamTooOld, grpc.StatusCode.UNAVAILABLE, "STREAM_TOO_OLD"),
    Kind(LogUnavailable, grpc.StatusCode.UNAVAILABLE, "LOG_UNAVAILABLE"),
    Kind(Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"),
    Kind(TimeoutError, grpc.StatusCode.DEADLINE_EXCEEDED, "TIMED_OUT"),
)
UNEXPECTED = Kind(Exception, grpc.StatusCode.INTERNAL, "UNEXPECTED")
_ALSO_OF_GRPC = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

# These say that the engine failed its callers; the others say that a caller erred or left.
FAILURES = frozenset(
    {
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)


@dataclass(frozen=True)
class Told:
    """An error in the words that its caller is told.

    Attributes:
        field: path of the wrong value; "" where the request as a whole is wrong, None where nothing in it is.
        wait_ms: when another try is worth it; None where only the caller can know, -1 where none is.
    """

    kind: Kind
    text: str
    field: str | None
    wait_ms: int | None

    @classmethod
    def of(cls, error: Exception) -> Told:
        """INTERNAL where it is not an error that a call may end with."""
        kind = next((kind for kind in KINDS if isinstance(error, kind.error)), UNEXPECTED)
        text = str(error)
        if kind is UNEXPECTED:
            # The cause is in the log, with its traceback: a caller can't do anything with it.
            text = f"the engine failed unexpectedly ({type(error).__name__})"
        elif isinstance(error, TimeoutError):
            text = text or "the call's deadline passed"
        return cls(kind, text, error.field if isinstance(error, InvalidRequest) else None, _wait_ms(error))

    @property
    def retry_ms(self) -> int | None:
        """When another try is worth it; None where none is, or only the caller can know."""
        return None if self.wait_ms == _NO_RETRY_MS else self.wait_ms


def status_of(error: Exception) -> CallStatus:
    """The status that a call ends with by an error."""
    told = Told.of(error)
    kind, field = told.kind, told.field
    metadata = {"field": field} if field else None
    details = packed(kind.code, told.text, kind.reason, field=field, retry_ms=told.retry_ms, metadata=metadata)
    hint = () if told.wait_ms is None else ((RETRY_PUSHBACK, str(told.wait_ms)),)
    ours = _OURS if kind.code in _ALSO_OF_GRPC else ()
    return CallStatus(kind.code, told.text, (*hint, *ours, (DETAILS_KEY, details)))


def refusal_of(error: Exception) -> recommender_service_pb2.Refusal:
    """The same of one query of a batch."""
    told = Told.of(error)
    code: int = told.kind.code.value[0]
    refusal = recommender_service_pb2.Refusal(
        code=code, message=told.text, reason=told.kind.reason, field=told.field or ""
    )
    if told.retry_ms is not None:
        refusal.retry_after.FromMilliseconds(told.retry_ms)
    return refusal


def is_expected(error: BaseException) -> bool:
    """Whether an error is of a kind that happens without a bug, so that its text says all there is to say."""
    return any(isinstance(error, kind.error) for kind in KINDS) or is_of_the_machine(error)


def _wait_ms(error: Exception) -> int | None:
    """When a caller may come back, drawn by chance; None where only the caller can know, -1 where it need not try."""
    if isinstance(error, Overloaded):
        least_ms = error.retry_after_ms
    elif isinstance(error, TooLarge):
        return _NO_RETRY_MS
    elif isinstance(error, LogUnavailable):
        if error.last:
            return _NO_RETRY_MS
        least_ms = _LOG_RETRY_MS
    elif isinstance(error, (ShuttingDown, StreamTooOld)):
        least_ms = _ELSEWHERE_MS
    else:
        return None
    return round(least_ms * random.uniform(1, _SPREAD))
