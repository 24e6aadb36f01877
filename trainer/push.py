"""Carries weights to an engine, in chunks, with a digest, again and again while it is away; and asks how they fare.

A push is over once the registry has the model. Each engine then builds it in its own time: `versions` says how far
that is.

Shapes: none; weights are bytes.
"""

from __future__ import annotations

import hashlib
import logging
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import grpc
from ousel.channel import Engines, engines
from ousel.v1 import event_pb2, model_service_pb2, model_service_pb2_grpc

from engine.log_fields import of_model

CHUNK_BYTES = 1 << 20
_FIRST_BACKOFF_S, _LAST_BACKOFF_S = 0.5, 8.0
_STATUS_TIMEOUT_S = 5.0
_LOOK_S, _SAY_S = 0.5, 15.0
# What another try may mend; every other code is the engine's verdict on these weights.
_PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED}
_log = logging.getLogger(__name__)


class PushError(RuntimeError):
    """The engine could not be reached in time, or refused the weights; the message says which and why."""


class WeightsRefused(PushError):
    """The engine has looked at the weights and will not take them, however often they are pushed."""


class Outcome(Enum):
    """What became of a model that was pushed."""

    BUILDING = "is on its way"
    SERVING = "serves"
    REFUSED = "was refused"
    ROLLED_BACK = "was rolled back"
    STORED = "is stored, and another version serves"
    LOST = "is not known to the registry"


@dataclass(frozen=True)
class Versions:
    """What the engine says of its models.

    Attributes:
        serving: the version that it serves; 0 before the first.
        newest: the greatest that the registry ever had.
        announced: the version that all engines are to serve; 0 before the first.
        outcomes: what became of each version of the registry, as this engine sees it, and why.
        progress: of the build that is under way, from 0 to 1; None where none is.
    """

    serving: int
    newest: int
    announced: int = 0
    outcomes: Mapping[int, tuple[Outcome, str]] = field(default_factory=dict)
    progress: float | None = None

    def outcome(self, version: int) -> tuple[Outcome, str]:
        """What became of a version, and why."""
        return self.outcomes.get(version, (Outcome.LOST, ""))


@dataclass(frozen=True)
class WeightsFile:
    """What is pushed.

    Attributes:
        data: the weights file.
        metrics: finite numbers by name.
        trained_on: the last record of each partition that it has learned from.
    """

    data: bytes
    metrics: Mapping[str, float] = field(default_factory=dict)
    trained_on: Sequence[event_pb2.LogPosition] = ()


def last_records(positions: Mapping[tuple[str, int], int]) -> list[event_pb2.LogPosition]:
    """The last record before the position of each topic's partition, as a push bears them."""
    return [
        event_pb2.LogPosition(topic=topic, partition=partition, offset=position - 1)
        for (topic, partition), position in sorted(positions.items())
    ]


@dataclass(frozen=True)
class Pushed:
    """What the engine answered; `announce_ms`: from the last chunk to the model being stored and announced."""

    version: int
    announce_ms: float


def versions(engine: str | Engines, timeout_s: float = _STATUS_TIMEOUT_S) -> Versions | None:
    """The models of the registry, as an engine sees them; None where it is unreachable or does not know them yet."""
    engine = _reached(engine)
    with engine.open() as channel:
        try:
            listed = model_service_pb2_grpc.ModelServiceStub(channel).ListModels(
                model_service_pb2.ListModelsRequest(), timeout=timeout_s, metadata=engine.metadata()
            )
        except grpc.RpcError:
            return None
    return Versions(
        int(listed.serving_version),
        int(listed.newest_version),
        int(listed.announced_version),
        {int(model.version): _outcome(model, listed) for model in listed.models},
        listed.building.progress if listed.HasField("building") else None,
    )


def _outcome(
    model: model_service_pb2.RegisteredModel, listed: model_service_pb2.ListModelsResponse
) -> tuple[Outcome, str]:
    if model.state == model_service_pb2.MODEL_STATE_WITHDRAWN:
        return Outcome.REFUSED, model.reason
    if model.state == model_service_pb2.MODEL_STATE_ROLLED_BACK:
        return Outcome.ROLLED_BACK, f"by {model.reason}"
    if listed.serving_version == model.version:
        return Outcome.SERVING, ""
    if listed.HasField("refused") and listed.refused.version == model.version:
        return Outcome.REFUSED, listed.refused.reason
    if model.state == model_service_pb2.MODEL_STATE_SERVING:
        return Outcome.BUILDING, listed.registry_problem
    return Outcome.STORED, ""


def push(engine: str | Engines, file: WeightsFile, version: int, timeout_s: float) -> Pushed:
    """Pushes once.

    Args:
        engine: its address, or where it is and how this process shows who it is.
        version: must be above all that the registry ever had.

    Raises:
        WeightsRefused: the engine will not take these weights.
        PushError: refused for another reason, unreachable, or no answer within `timeout_s`.
    """
    engine = _reached(engine)
    with engine.open() as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        messages = _messages(file, version)
        try:
            answer = stub.PushWeights(messages, timeout=timeout_s, metadata=engine.metadata())
        except grpc.RpcError as error:
            raise _push_error(engine.name, version, error) from error
    return Pushed(int(answer.version), answer.swap_ms)


def push_next(engine: str | Engines, file: WeightsFile, timeout_s: float, stop: threading.Event) -> Pushed:
    """Waits until the engine knows the registry, and pushes as the next version; tries again where it goes away.

    Raises:
        WeightsRefused: the engine will not take these weights.
        PushError: refused for another reason, or not done within `timeout_s`, or `stop` was set.
    """
    engine = _reached(engine)
    why = f"engine at {engine.name} does not answer, or can't reach its registry"
    deadline_s, backoff_s = time.monotonic() + timeout_s, _FIRST_BACKOFF_S
    while not stop.is_set() and (left_s := deadline_s - time.monotonic()) > 0:
        known = versions(engine, min(_STATUS_TIMEOUT_S, left_s))
        if known is not None:
            try:
                return push(engine, file, known.newest + 1, max(0.1, deadline_s - time.monotonic()))
            except PushError as error:
                cause = error.__cause__
                if not (isinstance(cause, grpc.Call) and cause.code() in _PASSING):
                    raise
                why = str(error)
        _log.info("push waits %.1f s: %s", backoff_s, why)
        stop.wait(min(backoff_s, max(0.0, deadline_s - time.monotonic())))
        backoff_s = min(2 * backoff_s, _LAST_BACKOFF_S)
    raise PushError("push was stopped" if stop.is_set() else f"push not done within {timeout_s:g} s: {why}")


def await_serving(engine: str | Engines, version: int, silence_s: float, stop: threading.Event) -> None:
    """Waits until an engine serves a version, for as long as its build takes.

    Args:
        silence_s: an engine that does not answer for longer is given up. Its build goes on.

    Raises:
        WeightsRefused: the engine does not take it.
        PushError: it was taken back or lost, the engine does not answer, or `stop` was set.
    """
    engine = _reached(engine)
    heard_s = said_s = time.monotonic()
    while not stop.is_set():
        known = versions(engine)
        now_s = time.monotonic()
        if known is not None:
            heard_s = now_s
            outcome, why = known.outcome(version)
            if outcome is Outcome.SERVING:
                return
            if outcome is not Outcome.BUILDING:
                kind = WeightsRefused if outcome is Outcome.REFUSED else PushError
                raise kind(f"engine at {engine.name}: version {version} {outcome.value}" + (f": {why}" if why else ""))
            if now_s - said_s > _SAY_S:
                said_s = now_s
                done = "waits for its turn" if known.progress is None else f"is built, {100 * known.progress:.0f}%"
                _log.info("version %d %s%s", version, done, f": {why}" if why else "", extra=of_model(version))
        elif now_s - heard_s > silence_s:
            raise PushError(f"engine at {engine.name} does not answer; version {version} is announced all the same")
        stop.wait(_LOOK_S)
    raise PushError(f"the wait for version {version} was stopped; it is announced all the same")


def _reached(engine: str | Engines) -> Engines:
    return engine if isinstance(engine, Engines) else engines(engine)


def _messages(file: WeightsFile, version: int) -> Iterator[model_service_pb2.PushWeightsRequest]:
    header = model_service_pb2.WeightsHeader(
        version=version,
        size_bytes=len(file.data),
        sha256=hashlib.sha256(file.data).digest(),
        metrics=dict(file.metrics),
        trained_on=file.trained_on,
        pushed_by=f"ousel-trainer on {socket.gethostname()}"[:100],
    )
    yield model_service_pb2.PushWeightsRequest(header=header)
    for start in range(0, len(file.data), CHUNK_BYTES):
        yield model_service_pb2.PushWeightsRequest(chunk=file.data[start : start + CHUNK_BYTES])


def _push_error(address: str, version: int, error: grpc.RpcError) -> PushError:
    code, details = (error.code().name, error.details()) if isinstance(error, grpc.Call) else ("UNKNOWN", str(error))
    kind = WeightsRefused if code == grpc.StatusCode.INVALID_ARGUMENT.name else PushError
    return kind(f"engine at {address} did not take weights version {version}: {code}: {details}")
