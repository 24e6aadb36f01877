"""What can go wrong, in plain words. No gRPC error leaves this package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import grpc

from ousel.details import KEY, read

# An export names every item that remembers a user; gRPC's own limit is 4 MiB.
MAX_ANSWER_BYTES = 64 * 2**20


class OuselError(Exception):
    """A call failed.

    Attributes:
        code: the gRPC status name, such as "UNAVAILABLE".
        reason: why, by a name that never changes its meaning, such as "OVERLOADED"; None where no engine said one.
        field: path of the value that the engine refused, such as "query.k"; None where it refused none.
        retry_after_s: after which time the engine would have another try; None where it said none.
    """

    default_code: ClassVar[str] = "UNKNOWN"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code or self.default_code
        self.reason: str | None = None
        self.field: str | None = None
        self.retry_after_s: float | None = None


class InvalidArgument(OuselError, ValueError):
    """The request breaks a rule; the message names the field, its value and what is allowed. Don't retry."""

    default_code = "INVALID_ARGUMENT"


class OutOfRange(InvalidArgument):
    """The record that a list must reflect lies beyond the end of the log; was its position made up? Don't retry."""

    default_code = "OUT_OF_RANGE"


class Unavailable(OuselError):
    """The engine can't be reached or isn't ready. Worth a retry later."""

    default_code = "UNAVAILABLE"


class DeadlineExceeded(OuselError):
    """No answer in time. A tracked event may or may not be in the log; tracking it again with its event_id is safe."""

    default_code = "DEADLINE_EXCEEDED"


class ResourceExhausted(OuselError):
    """The engine is at one of its limits, such as open streams. Worth a retry later."""

    default_code = "RESOURCE_EXHAUSTED"


class StreamEnded(OuselError):
    """The stream is over: closed here, or cancelled by the engine. Open a new one."""

    default_code = "CANCELLED"


def client_closed() -> OuselError:
    """The error of a call or a stream that is asked of a client after its end."""
    return OuselError("the client is closed; make a new one", StreamEnded.default_code)


def no_answer(address: str, timeout_s: float | None) -> DeadlineExceeded:
    """The error of a call whose time limit is over."""
    within = "in time" if timeout_s is None else f"within {timeout_s:g} s"
    return DeadlineExceeded(
        f"no answer from the engine at {address} {within}; it may be busy, or the address may be wrong"
    )


def wrong_loop() -> OuselError:
    """The error of a call that is awaited in another event loop than the first one, or in none."""
    return OuselError(
        "an AsyncClient belongs to the event loop that it was first used in, which must be running; make a new one",
        "FAILED_PRECONDITION",
    )


@contextmanager
def plain_reading(address: str) -> Iterator[None]:
    """Inside, an answer is read: one that holds what the client's values can't, such as a time in the year 10,000."""
    try:
        yield
    except (ArithmeticError, TypeError, ValueError) as error:
        raise OuselError(f"this client can't read the answer of the engine at {address}: {error}") from None


_AHEAD_S = 0.1  # that an engine may end a call before our own time limit does
_SAID_BY = "ousel-said-by"  # in the trailing metadata of a status that an engine gives
_RETRY_AFTER = "grpc-retry-pushback-ms"  # there as well (gRFC A6)
_MOST_RETRY_MS = 60_000  # A longer hint is a mistake of whoever gives it.
# gRPC's own words, with a code that else says to try again; the first are said by the side that receives an answer.
_ANSWER_TOO_LARGE = ("CLIENT: Received message larger than max", f" vs. {MAX_ANSWER_BYTES})")  # the latter before 1.64
_WRITE_FAILED = "Internal error from Core"  # grpc.aio's, where a write fails before the call's own status has come
_TOO_LARGE = "message larger than max"

_BY_CODE: dict[str, type[OuselError]] = {
    kind.default_code: kind
    for kind in (InvalidArgument, OutOfRange, Unavailable, DeadlineExceeded, ResourceExhausted, StreamEnded)
}


def from_call(error: Any, address: str, timeout_s: float | None, took_s: float = 0.0) -> OuselError:
    """The error for a call to the engine at `address` that was given `timeout_s` and failed with a gRPC error.

    Args:
        took_s: how long the call took.
    """
    if error.code() is grpc.StatusCode.CANCELLED and timeout_s is not None and took_s >= timeout_s - _AHEAD_S:
        return no_answer(address, timeout_s)  # The engine's clock was first to see that the time is over.
    trailing = dict(error.trailing_metadata() or ())
    made = from_status(error.code(), error.details(), address, timeout_s, by_engine=_SAID_BY in trailing)
    details = read(trailing.get(KEY))
    made.reason, made.field = details.reason, details.field
    made.retry_after_s = _seconds(trailing.get(_RETRY_AFTER))
    return made


def from_refusal(refusal: Any, address: str) -> OuselError:
    """The error of one query of a batch, that the engine at `address` has refused."""
    kind = next((one for one in grpc.StatusCode if one.value[0] == refusal.code), grpc.StatusCode.UNKNOWN)
    made = from_status(kind, refusal.message, address, None, by_engine=True)
    made.reason, made.field = refusal.reason or None, refusal.field or None
    made.retry_after_s = refusal.retry_after.ToTimedelta().total_seconds() if refusal.HasField("retry_after") else None
    return made


def _seconds(ms: Any) -> float | None:
    """A hint of the trailing metadata; None where there is none, or no try is wanted."""
    try:
        found = int(ms)
    except (TypeError, ValueError):
        return None
    return found / 1000 if 0 <= found <= _MOST_RETRY_MS else None


def from_status(
    code: grpc.StatusCode, details: str | None, address: str, timeout_s: float | None, *, by_engine: bool = False
) -> OuselError:
    """The error for a status.

    Args:
        by_engine: whether an engine gave it; else gRPC itself may have, because it reached none.
    """
    if code is grpc.StatusCode.INTERNAL and details == _WRITE_FAILED and not by_engine:
        code, details = grpc.StatusCode.UNAVAILABLE, "the connection was lost in a write"
    if by_engine and details:
        message = f"{details} (says the engine at {address})"
    elif any(words in (details or "") for words in _ANSWER_TOO_LARGE):
        message = f"the answer of the engine at {address} is larger than this client takes ({details})"
        return OuselError(message, code.name)
    elif _TOO_LARGE in (details or ""):
        return InvalidArgument(f"the request is larger than the engine at {address} takes ({details})")
    elif code is grpc.StatusCode.UNAVAILABLE:
        # gRPC wraps the system's own words, such as "Connection refused", in a report of every address it tried.
        reason = (details or "").rpartition("Failed to connect to remote host: ")[2] or "no reason given"
        message = (
            f"the engine at {address} is not available ({reason}); "
            "check that it is running and ready, and that host and port are right"
        )
    elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return no_answer(address, timeout_s)
    elif code is grpc.StatusCode.UNIMPLEMENTED:
        message = f"the server at {address} does not know this call; is it an Ousel engine of this version? ({details})"
    else:
        message = details or f"the engine at {address} failed with {code.name}"
    return _BY_CODE.get(code.name, OuselError)(message, code.name)
