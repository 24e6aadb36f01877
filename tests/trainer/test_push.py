from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from ousel.v1 import event_pb2, model_service_pb2, model_service_pb2_grpc

from trainer.config import TrainSection
from trainer.push import (
    CHUNK_BYTES,
    Outcome,
    PushError,
    WeightsFile,
    WeightsRefused,
    await_serving,
    push,
    push_next,
    versions,
)

WEIGHTS = bytes(range(256)) * 4096 * 2 + b"the last chunk is short"
FILE = WeightsFile(WEIGHTS)


class RecordingServicer(model_service_pb2_grpc.ModelServiceServicer):
    """Keeps what is pushed; answers or fails as told.

    Attributes:
        known: whether it knows the registry.
        states: of the versions that it lists; a push adds one that serves.
        listed: changes its answer to ListModels, each look.
    """

    def __init__(self) -> None:
        self.newest = 7
        self.known = True
        self.states: dict[int, int] = {}
        self.listed: list[Callable[[model_service_pb2.ListModelsResponse], object]] = []
        self.asked = 0
        self.authorizations: list[Any] = []
        self.failures: list[grpc.StatusCode] = []
        self.header: model_service_pb2.WeightsHeader | None = None
        self.chunks: list[bytes] = []

    def PushWeights(
        self, requests: Iterator[model_service_pb2.PushWeightsRequest], context: Any
    ) -> model_service_pb2.PushWeightsResponse:
        self.authorizations.append(dict(context.invocation_metadata()).get("authorization"))
        messages = list(requests)
        if self.failures:
            context.abort(self.failures.pop(0), "told to fail")
        assert messages[0].WhichOneof("message") == "header"
        assert all(message.WhichOneof("message") == "chunk" for message in messages[1:])
        self.header, self.chunks = messages[0].header, [message.chunk for message in messages[1:]]
        self.newest = self.header.version
        self.states[self.newest] = model_service_pb2.MODEL_STATE_SERVING
        return model_service_pb2.PushWeightsResponse(version=self.header.version, swap_ms=12.0, announced=True)

    def ListModels(
        self, request: model_service_pb2.ListModelsRequest, context: Any
    ) -> model_service_pb2.ListModelsResponse:
        self.asked += 1
        self.authorizations.append(dict(context.invocation_metadata()).get("authorization"))
        if self.asked == 3:
            self.known = True
        if not self.known:
            context.abort(grpc.StatusCode.UNAVAILABLE, "registry.topic is not read to its end yet")
        answer = model_service_pb2.ListModelsResponse(
            newest_version=self.newest, serving_version=self.newest, announced_version=self.newest
        )
        for version, state in self.states.items():
            answer.models.add(version=version, state=state, reason="the canary" if state > 2 else "")
        if self.listed:
            self.listed.pop(0)(answer)
        return answer


@pytest.fixture
def engine() -> Iterator[tuple[str, RecordingServicer]]:
    servicer = RecordingServicer()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", servicer
    server.stop(None).wait()


def test_all_bytes_arrive_in_chunks_under_one_digest(engine: tuple[str, RecordingServicer]) -> None:
    address, servicer = engine
    at = event_pb2.LogPosition(topic="ousel.events", partition=1, offset=41)
    pushed = push(address, WeightsFile(WEIGHTS, {"hit_rate@20": 0.25}, [at]), 9, timeout_s=10)
    assert (pushed.version, pushed.announce_ms) == (9, 12.0)
    assert servicer.header is not None
    assert b"".join(servicer.chunks) == WEIGHTS
    assert [len(chunk) for chunk in servicer.chunks] == [CHUNK_BYTES, CHUNK_BYTES, 23]
    assert servicer.header.size_bytes == len(WEIGHTS)
    assert servicer.header.sha256 == hashlib.sha256(WEIGHTS).digest()
    assert dict(servicer.header.metrics) == {"hit_rate@20": 0.25}
    assert list(servicer.header.trained_on) == [at]
    assert servicer.header.pushed_by.startswith("ousel-trainer on ")


def test_the_next_version_is_one_above_the_newest_of_the_registry(engine: tuple[str, RecordingServicer]) -> None:
    address, servicer = engine
    assert push_next(address, FILE, 10, threading.Event()).version == 8
    assert servicer.newest == 8
    servicer.newest = 20  # pushed by somebody else, and rolled back
    assert push_next(address, FILE, 10, threading.Event()).version == 21


def test_what_became_of_each_version_is_told(engine: tuple[str, RecordingServicer]) -> None:
    address, servicer = engine
    servicer.states = {
        7: model_service_pb2.MODEL_STATE_SERVING, 6: model_service_pb2.MODEL_STATE_WITHDRAWN,
        5: model_service_pb2.MODEL_STATE_ROLLED_BACK, 4: model_service_pb2.MODEL_STATE_STORED,
    }  # fmt: skip
    known = versions(address)
    assert known is not None
    assert [known.outcome(version) for version in (7, 6, 5, 4, 3)] == [
        (Outcome.SERVING, ""), (Outcome.REFUSED, "the canary"), (Outcome.ROLLED_BACK, "by the canary"),
        (Outcome.STORED, ""), (Outcome.LOST, ""),
    ]  # fmt: skip


def test_a_build_is_waited_for_as_long_as_it_takes(engine: tuple[str, RecordingServicer]) -> None:
    address, servicer = engine
    servicer.states = {7: model_service_pb2.MODEL_STATE_SERVING}

    def building(answer: model_service_pb2.ListModelsResponse) -> None:
        answer.serving_version = 6
        answer.building.progress = 0.5

    servicer.listed = [building, building]
    await_serving(address, 7, 10, threading.Event())
    assert servicer.asked == 3


def test_a_refusal_after_the_push_says_why(engine: tuple[str, RecordingServicer]) -> None:
    address, servicer = engine
    servicer.states = {7: model_service_pb2.MODEL_STATE_SERVING}

    def refusing(answer: model_service_pb2.ListModelsResponse) -> None:
        answer.serving_version = 6
        answer.refused.version, answer.refused.reason = 7, "hit_rate@20 must be at least"

    servicer.listed = [refusing]
    with pytest.raises(WeightsRefused, match=f"engine at {address}: version 7 was refused: hit_rate@20 must be"):
        await_serving(address, 7, 10, threading.Event())
    servicer.states = {7: model_service_pb2.MODEL_STATE_ROLLED_BACK}
    with pytest.raises(PushError, match="version 7 was rolled back: by the canary"):
        await_serving(address, 7, 10, threading.Event())


def test_an_engine_that_falls_silent_is_given_up(free_address: str) -> None:
    with pytest.raises(PushError, match="does not answer; version 7 is announced all the same"):
        await_serving(free_address, 7, 0.2, threading.Event())


def test_waits_for_an_engine_that_catches_up_and_tries_again_where_it_goes_away(
    engine: tuple[str, RecordingServicer],
) -> None:
    address, servicer = engine
    servicer.known = False
    servicer.failures = [grpc.StatusCode.UNAVAILABLE]
    assert versions(address) is None
    assert push_next(address, FILE, 20, threading.Event()).version == 8
    assert servicer.asked >= 3
    assert b"".join(servicer.chunks) == WEIGHTS


def test_a_refusal_is_final_and_says_why(engine: tuple[str, RecordingServicer]) -> None:
    address, servicer = engine
    servicer.failures = [grpc.StatusCode.INVALID_ARGUMENT]
    with pytest.raises(WeightsRefused, match=r"version 8: INVALID_ARGUMENT: told to fail"):
        push_next(address, FILE, 10, threading.Event())
    servicer.failures = [grpc.StatusCode.FAILED_PRECONDITION]
    with pytest.raises(PushError, match=r"version 8: FAILED_PRECONDITION") as other:
        push_next(address, FILE, 10, threading.Event())
    assert not isinstance(other.value, WeightsRefused)
    assert servicer.chunks == []


def test_an_engine_that_never_comes_is_named(free_address: str) -> None:
    with pytest.raises(PushError, match=free_address):
        push_next(free_address, FILE, 0.3, threading.Event())
    assert versions(free_address) is None


def test_a_stop_ends_the_wait(free_address: str) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(PushError, match="stopped"):
        push_next(free_address, FILE, 60, stop)


def test_the_trainers_token_goes_with_every_call(engine: tuple[str, RecordingServicer], tmp_path: Path) -> None:
    address, servicer = engine
    (tmp_path / "token").write_text("s3cret\n")
    section = TrainSection.model_validate({"engine": address, "token_file": tmp_path / "token"})
    assert push_next(section.engines(), FILE, 10, threading.Event()).version == 8
    assert servicer.authorizations == ["Bearer s3cret"] * 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"engine": "far:50051", "token_file": "token"}, "token_file would be sent to far in plain text"),
        ({"engine": "far:50051", "token_file": "token", "insecure": True}, ""),
        ({"engine": "far:50051", "token_file": "token", "tls_authorities": "token"}, ""),
        ({"token_file": "empty"}, "the token in token_file must be a text of visible ASCII"),
        ({"tls_certificate": "token"}, "tls_certificate and tls_key must be given together"),
    ],
)
def test_a_token_that_others_could_read_is_refused_at_the_start(settings, said, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret")
    (tmp_path / "empty").touch()
    given = {name: tmp_path / value if value in ("token", "empty") else value for name, value in settings.items()}
    try:
        TrainSection.model_validate(given)
    except ValueError as error:
        assert said and said in str(error) and "s3cret" not in str(error)
    else:
        assert not said


@pytest.fixture
def free_address() -> str:
    """Where nobody listens."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.stop(None).wait()
    return f"127.0.0.1:{port}"
