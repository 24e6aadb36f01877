"""Pushes of models to a server under test."""

import asyncio
import hashlib
from typing import Any

import grpc
from ousel.v1.model_service_pb2 import (
    PushWeightsRequest,
    PushWeightsResponse,
    WeightsHeader,
)
from ousel.v1.model_service_pb2_grpc import ModelServiceStub

from tests.engine.serving.fakes import Served, until

WEIGHTS = bytes(range(256)) * 200
DIGEST = hashlib.sha256(WEIGHTS).digest()


def header(**fields: object) -> PushWeightsRequest:
    known = {"version": 4, "size_bytes": len(WEIGHTS), "sha256": DIGEST, "metrics": {"hit_rate@20": 0.5}}
    return PushWeightsRequest(header=WeightsHeader(**{**known, **fields}))


def chunks(data: bytes = WEIGHTS, size: int = 20_000) -> list[PushWeightsRequest]:
    return [PushWeightsRequest(chunk=data[start : start + size]) for start in range(0, len(data), size)]


async def push(served: Served, messages: list[PushWeightsRequest]) -> PushWeightsResponse:
    """A push by a blocking client: grpc.aio's may report a server that ends a push early as INTERNAL (grpc#36066)."""

    def call() -> PushWeightsResponse:
        with grpc.insecure_channel(f"127.0.0.1:{served.server.port}") as channel:
            return ModelServiceStub(channel).PushWeights(iter(messages), timeout=5)

    return await asyncio.to_thread(call)


async def under_way(served: Served, **fields: object) -> Any:
    """A push whose header has been read, and that keeps the place."""
    call = served.model.PushWeights()
    await call.write(header(**fields))
    await until(lambda: served.server.models._pushing.locked(), "the push is under way")
    return call


async def finish(call: Any) -> PushWeightsResponse:
    for chunk in chunks():
        await call.write(chunk)
    await call.done_writing()
    return await call
