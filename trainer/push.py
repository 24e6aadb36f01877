"""Carries weights to the engine: in chunks, with a digest, again and again while the engine is away.

Shapes: none; weights are bytes.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import grpc
from ousel.channel import Engines, engines
from ousel.v1 import model_service_pb2, model_service_pb2_grpc

CHUNK_BYTES = 1 << 20
_FIRST_BACKOFF_S, _LAST_BACKOFF_S = 0.5, 8.0
_STATUS_TIMEOUT_S = 5.0
# What another try may mend; every other code is the engine's verdict on these weights.
_PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED}
_log = logging.getLogger(__name__)


class PushError(RuntimeError):
    """The engine could not be reached in time, or refused the weights; the message says which and why."""


class WeightsRefused(PushError):
    """The engine has looked at the weights and will not take them, however often they are pushed."""


@dataclass(frozen=True)
class Versions:
    """What the engine says of its models.

    Attributes:
        serving: 0 before the first.
        newest: the greatest it has served since it started; above `serving` after a roll back.
    """

    serving: int
    newest: int


@dataclass(frozen=True)
class Pushed:
    """What the engine answered."""

    version: int
    swap_ms: float


def versions(engine: str | Engines, timeout_s: float = _STATUS_TIMEOUT_S) -> Versions | None:
    """The engine's model versions, or None where it is unreachable or still catching up."""
    engine = _reached(engine)
    with engine.open() as channel:
        try:
            status = model_service_pb2_grpc.ModelServiceStub(channel).GetStatus(
                model_service_pb2.GetStatusRequest(), timeout=timeout_s, metadata=engine.metadata()
            )
        except grpc.RpcError:
            return None
    if not status.serving:
        return None
    return Versions(int(status.model_version), max((status.model_version, *status.model_versions)))


def push(engine: str | Engines, weights: bytes, version: int, metrics: Mapping[str, float], timeout_s: float) -> Pushed:
    """Pushes once.

    Args:
        engine: its address, or where it is and how this process shows who it is.
        version: must be above all that the engine has served.
        metrics: finite numbers by name.

    Raises:
        WeightsRefused: the engine will not take these weights.
        PushError: refused for another reason, unreachable, or no answer within `timeout_s`.
    """
    engine = _reached(engine)
    with engine.open() as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        messages = _messages(weights, version, metrics)
        try:
            answer = stub.PushWeights(messages, timeout=timeout_s, metadata=engine.metadata())
        except grpc.RpcError as error:
            raise _push_error(engine.name, version, error) from error
    return Pushed(int(answer.version), answer.swap_ms)


def push_next(
    engine: str | Engines, weights: bytes, metrics: Mapping[str, float], timeout_s: float, stop: threading.Event
) -> Pushed:
    """Waits until the engine serves, pushes as its next version, and tries again where the engine goes away.

    Raises:
        WeightsRefused: the engine will not take these weights.
        PushError: refused for another reason, or not done within `timeout_s`, or `stop` was set.
    """
    engine = _reached(engine)
    why = f"engine at {engine.name} is not serving"
    deadline_s, backoff_s = time.monotonic() + timeout_s, _FIRST_BACKOFF_S
    while not stop.is_set() and (left_s := deadline_s - time.monotonic()) > 0:
        known = versions(engine, min(_STATUS_TIMEOUT_S, left_s))
        if known is not None:
            try:
                return push(engine, weights, known.newest + 1, metrics, max(0.1, deadline_s - time.monotonic()))
            except PushError as error:
                cause = error.__cause__
                if not (isinstance(cause, grpc.Call) and cause.code() in _PASSING):
                    raise
                why = str(error)
        _log.info("push waits %.1f s: %s", backoff_s, why)
        stop.wait(min(backoff_s, max(0.0, deadline_s - time.monotonic())))
        backoff_s = min(2 * backoff_s, _LAST_BACKOFF_S)
    raise PushError("push was stopped" if stop.is_set() else f"push not done within {timeout_s:g} s: {why}")


def _reached(engine: str | Engines) -> Engines:
    return engine if isinstance(engine, Engines) else engines(engine)


def _messages(
    weights: bytes, version: int, metrics: Mapping[str, float]
) -> Iterator[model_service_pb2.PushWeightsRequest]:
    header = model_service_pb2.WeightsHeader(
        version=version, size_bytes=len(weights), sha256=hashlib.sha256(weights).digest(), metrics=dict(metrics)
    )
    yield model_service_pb2.PushWeightsRequest(header=header)
    for start in range(0, len(weights), CHUNK_BYTES):
        yield model_service_pb2.PushWeightsRequest(chunk=weights[start : start + CHUNK_BYTES])


def _push_error(address: str, version: int, error: grpc.RpcError) -> PushError:
    code, details = (error.code().name, error.details()) if isinstance(error, grpc.Call) else ("UNKNOWN", str(error))
    kind = WeightsRefused if code == grpc.StatusCode.INVALID_ARGUMENT.name else PushError
    return kind(f"engine at {address} did not take weights version {version}: {code}: {details}")
