"""A fake engine behind a real gRPC server on the loopback: it records what it is asked and answers as told."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest
from ousel import Client
from ousel.v1 import (
    event_service_pb2,
    event_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    privacy_service_pb2,
    privacy_service_pb2_grpc,
    recommender_service_pb2,
    recommender_service_pb2_grpc,
    state_service_pb2,
    state_service_pb2_grpc,
)

DEADLINE_S = 10.0


def list_message(*item_ids: str, known: bool = True, model_version: int = 3):
    """A list of these items, titled after their ids, scored 1, 1/2, 1/3, ..."""
    return {
        "items": [
            {
                "item_id": item_id,
                "title": f"The {item_id}",
                "score": 1 / rank,
                "sources": ["SOURCE_INDEX", "SOURCE_POPULAR"],
            }
            for rank, item_id in enumerate(item_ids, 1)
        ],
        "origin": "ORIGIN_MODEL" if model_version else "ORIGIN_POPULARITY",
        "known": known,
        "model_version": model_version,
        "reflects": [{"topic": "ousel.events", "partition": 1, "offset": 41}],
    }


class FakeEngine(
    recommender_service_pb2_grpc.RecommenderServiceServicer,
    event_service_pb2_grpc.EventServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
    privacy_service_pb2_grpc.PrivacyServiceServicer,
    state_service_pb2_grpc.StateServiceServicer,
):
    """Answers with `list`, `status` and position 7; fails or hangs where told to.

    Attributes:
        requests: every unary request, in order.
        stream_messages: every message of every stream, in order.
        list: what Recommend answers, and RecommendBatch for each query whose user is not in `refused`; likewise
            `status`, `export`, `forgotten`, `digest`, `snapshot`, `rolled_back` and `models`.
        refused: by user, why the engine refuses a query of a batch.
        on_subscribe: what a stream gets for its subscription, (cause, list) each.
        failures: statuses that the next unary calls fail with, one each.
        pushback_ms: the hint that goes with each of these failures; None: none does.
        by_engine: whether they say that an engine gives them.
        stream_failure: what a stream fails with on its next event.
        end_streams: a stream ends well after the lists for its subscription.
        deaf: a stream reads nothing more after its subscription.
        hang: unary calls don't answer.
    """

    def __init__(self, port: int = 0) -> None:
        self.requests: list = []
        self.stream_messages: list = []
        self.list = list_message("apple", "bread")
        self.refused: dict = {}
        self.on_subscribe = [("CAUSE_SUBSCRIBED", list_message("apple", "bread"))]
        self.status = model_service_pb2.GetStatusResponse(serving=True, model_version=3)
        self.export = privacy_service_pb2.ExportUserResponse(partitions=[0, 2])
        self.forgotten = privacy_service_pb2.ForgetUserResponse(partitions=[0, 2])
        self.digest = state_service_pb2.GetDigestResponse(
            partitions=[
                {
                    "digest": "a1",
                    "reflects": {"topic": "ousel.events", "partition": 0, "offset": 9},
                    "events_folded": 8,
                },
                {"digest": "b2", "reflects": {"topic": "ousel.events", "partition": 2, "offset": -1}},
            ],
            catalog_digest="c3",
            catalog_reflects=[{"topic": "ousel.items", "partition": 0, "offset": 3}],
        )
        self.snapshot = state_service_pb2.TakeSnapshotResponse(
            reflects=[{"topic": "ousel.events", "partition": 2, "offset": 7}]
        )
        self.rolled_back = model_service_pb2.RollBackResponse(version=2, swap_ms=12.0, serving=True)
        self.models = model_service_pb2.ListModelsResponse(
            models=[
                {
                    "version": version,
                    "sha256": bytes([version]) * 32,
                    "size_bytes": 2_500_000,
                    "metrics": {"hit_rate@20": 0.1 * version},
                    "trained_on": [{"topic": "ousel.events", "partition": 1, "offset": 41}],
                    "accepted": {"seconds": 1_700_000_000 + version},
                    "pushed_by": "ousel-trainer on host",
                    "engine": "engine-1",
                    "state": state,
                    "reason": reason,
                }
                for version, state, reason in (
                    (3, "MODEL_STATE_WITHDRAWN", "the canary"),
                    (2, "MODEL_STATE_SERVING", ""),
                    (1, "MODEL_STATE_STORED", ""),
                )
            ],
            announced_version=2, pinned_version=2, newest_version=3, serving_version=1, serving=True,
            building={"version": 2, "progress": 0.25, "seconds": 1.5},
            refused={"version": 3, "reason": "the canary", "time": {"seconds": 1_700_000_005}},
            origin="MODEL_ORIGIN_LOCAL_COPY", registry_problem="it is away",
            dir="s3://shop/models", topic="ousel.models",
        )  # fmt: skip
        self.failures: deque = deque()
        self.pushback_ms: int | None = None
        self.by_engine = False
        self.stream_failure: tuple[grpc.StatusCode, str] | None = None
        self.end_streams = False
        self.deaf = False
        self.hang = False
        self.open_streams = 0
        self._changed = threading.Condition()
        self._released = threading.Event()
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        recommender_service_pb2_grpc.add_RecommenderServiceServicer_to_server(self, self._server)
        event_service_pb2_grpc.add_EventServiceServicer_to_server(self, self._server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(self, self._server)
        privacy_service_pb2_grpc.add_PrivacyServiceServicer_to_server(self, self._server)
        state_service_pb2_grpc.add_StateServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self.address = f"127.0.0.1:{self.port}"
        self._server.start()

    def wait_for(self, condition) -> None:
        """Waits until `condition()` holds; it is looked at whenever something arrives here."""
        with self._changed:
            assert self._changed.wait_for(condition, DEADLINE_S), "condition not met in time"

    def stop(self) -> None:
        self._released.set()
        assert self._server.stop(None).wait(DEADLINE_S)

    def Recommend(self, request, context):
        self._unary(request, context)
        return recommender_service_pb2.RecommendResponse(list=self.list)

    def RecommendBatch(self, request, context):
        self._unary(request, context)
        answers = [
            {"refusal": self.refused[query.user_id]} if query.user_id in self.refused else {"list": self.list}
            for query in request.queries
        ]
        return recommender_service_pb2.RecommendBatchResponse(answers=answers)

    def Track(self, request, context):
        self._unary(request, context)
        position = {"topic": "ousel.events", "partition": 2, "offset": 7}
        return event_service_pb2.TrackResponse(event_id=request.event.event_id, position=position)

    def GetStatus(self, request, context):
        self._unary(request, context)
        return self.status

    def RollBack(self, request, context):
        self._unary(request, context)
        return self.rolled_back

    def ListModels(self, request, context):
        self._unary(request, context)
        return self.models

    def PinModel(self, request, context):
        self._unary(request, context)
        return model_service_pb2.PinModelResponse(version=request.version)

    def UnpinModel(self, request, context):
        self._unary(request, context)
        return model_service_pb2.UnpinModelResponse(version=3)

    def PruneModels(self, request, context):
        self._unary(request, context)
        return model_service_pb2.PruneModelsResponse(versions=[2, 1])

    def ExportUser(self, request, context):
        self._unary(request, context)
        return self.export

    def ForgetUser(self, request, context):
        self._unary(request, context)
        return self.forgotten

    def GetDigest(self, request, context):
        self._unary(request, context)
        return self.digest

    def TakeSnapshot(self, request, context):
        self._unary(request, context)
        return self.snapshot

    def StreamRecommendations(self, request_iterator, context):
        with self._changed:
            self.open_streams += 1
        context.add_callback(self._stream_closed)
        for message in request_iterator:
            with self._changed:
                self.stream_messages.append(message)
                self._changed.notify_all()
            if message.HasField("event"):
                if self.stream_failure:
                    context.abort(*self.stream_failure)
                yield self._update("CAUSE_EVENTS", list_message(message.event.item_id))
                continue
            for cause, ranked in self.on_subscribe:
                yield self._update(cause, ranked)
            if self.end_streams:
                return
            if self.deaf:
                self._released.wait(DEADLINE_S)

    def _unary(self, request, context) -> None:
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
        if self.hang:
            self._released.wait(DEADLINE_S)
        if self.failures:
            hint = () if self.pushback_ms is None else (("grpc-retry-pushback-ms", str(self.pushback_ms)),)
            context.set_trailing_metadata(hint + ((("ousel-said-by", "engine"),) if self.by_engine else ()))
            context.abort(*self.failures.popleft())

    def _stream_closed(self) -> None:
        with self._changed:
            self.open_streams -= 1
            self._changed.notify_all()

    def _update(self, cause, ranked):
        return recommender_service_pb2.StreamRecommendationsResponse(cause=cause, list=ranked)


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    fake = FakeEngine()
    yield fake
    fake.stop()


@pytest.fixture
def client(engine: FakeEngine) -> Iterator[Client]:
    with Client(engine.address) as client:
        yield client


@pytest.fixture
def make_list():
    """Makes the message of a list from its item ids."""
    return list_message


@pytest.fixture
def restart():
    """Stops a fake engine and starts another on the same port."""
    started: list[FakeEngine] = []

    def start_again(engine: FakeEngine) -> FakeEngine:
        engine.stop()
        started.append(FakeEngine(engine.port))
        return started[-1]

    yield start_again
    for engine in started:
        engine.stop()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A loopback port that refuses connections: bound, so that nobody else takes it, but not listening."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
