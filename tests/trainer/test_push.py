from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from ousel.v1 import model_service_pb2, model_service_pb2_grpc

from trainer.config import TrainSection
from trainer.push import CHUNK_BYTES, PushError, Versions, WeightsRefused, push, push_next, versions

WEIGHTS = bytes(range(256)) * 4096 * 2 + b"the last chunk is short"


class RecordingServicer(model_service_pb2_grpc.ModelServiceServicer):
    """Keeps what is pushed; answers or fails as told."""

    def __init__(self) -> None:
        self.version = 7
        self.served: list[int] = []
        self.serving = True
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
        self.version = self.header.version
        return model_service_pb2.PushWeightsResponse(version=self.header.version, swap_ms=12.0)

    def GetStatus(
        self, request: model_service_pb2.GetStatusRequest, context: Any
    ) -> model_service_pb2.GetStatusResponse:
        self.asked += 1
        self.authorizations.append(dict(context.invocation_metadata()).get("authorization"))
        if self.asked == 3:
            self.serving = True
        return model_service_pb2.GetStatusResponse(
            serving=self.serving, model_version=self.version, model_versions=self.served
        )


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
    pushed = push(address, WEIGHTS, 9, {"hit_rate@20": 0.25}, timeout_s=10)
    assert (pushed.version, pushed.swap_ms) == (9, 12.0)
    assert servicer.header is not None
    assert b"".join(servicer.chunks) == WEIGHTS
    assert [len(chunk) for chunk in servicer.chunks] == [CHUNK_BYTES, CHUNK_BYTES, 23]
    assert servicer.header.size_bytes == len(WEIGHTS)
    assert servicer.header.sha256 == hashlib.sha256(WEIGHTS).digest()
    assert dict(servicer.header.metrics) == {"hit_rate@20": 0.25}


def test_the_next_version_is_one_above_the_serving_one(engine: tuple[str, RecordingServicer]) -> None:
    address, servicer = engine
    assert push_next(address, WEIGHTS, {}, 10, threading.Event()).version == 8
    assert servicer.version == 8


def test_the_next_version_after_a_roll_back_is_above_the_one_that_was_rolled_back(
    engine: tuple[str, RecordingServicer],
) -> None:
    address, servicer = engine
    servicer.served = [6, 7, 8, 9, 7]
    assert versions(address) == Versions(serving=7, newest=9)
    assert push_next(address, WEIGHTS, {}, 10, threading.Event()).version == 10


def test_waits_for_an_engine_that_catches_up_and_tries_again_where_it_goes_away(
    engine: tuple[str, RecordingServicer],
) -> None:
    address, servicer = engine
    servicer.serving = False
    servicer.failures = [grpc.StatusCode.UNAVAILABLE]
    assert versions(address) is None
    assert push_next(address, WEIGHTS, {}, 20, threading.Event()).version == 8
    assert servicer.asked >= 3
    assert b"".join(servicer.chunks) == WEIGHTS


def test_a_refusal_is_final_and_says_why(engine: tuple[str, RecordingServicer]) -> None:
    address, servicer = engine
    servicer.failures = [grpc.StatusCode.INVALID_ARGUMENT]
    with pytest.raises(WeightsRefused, match=r"version 8: INVALID_ARGUMENT: told to fail"):
        push_next(address, WEIGHTS, {}, 10, threading.Event())
    servicer.failures = [grpc.StatusCode.FAILED_PRECONDITION]
    with pytest.raises(PushError, match=r"version 8: FAILED_PRECONDITION") as other:
        push_next(address, WEIGHTS, {}, 10, threading.Event())
    assert not isinstance(other.value, WeightsRefused)
    assert servicer.chunks == []


def test_an_engine_that_never_comes_is_named(free_address: str) -> None:
    with pytest.raises(PushError, match=free_address):
        push_next(free_address, WEIGHTS, {}, 0.3, threading.Event())
    assert versions(free_address) is None


def test_a_stop_ends_the_wait(free_address: str) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(PushError, match="stopped"):
        push_next(free_address, WEIGHTS, {}, 60, stop)


def test_the_trainers_token_goes_with_every_call(engine: tuple[str, RecordingServicer], tmp_path: Path) -> None:
    address, servicer = engine
    (tmp_path / "token").write_text("s3cret\n")
    section = TrainSection.model_validate({"engine": address, "token_file": tmp_path / "token"})
    assert push_next(section.engines(), WEIGHTS, {}, 10, threading.Event()).version == 8
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
