"""StateService: digests and snapshots when an operator wants them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from ousel.v1 import event_pb2, state_service_pb2, state_service_pb2_grpc

from engine.config import Config
from engine.pipeline import NotFollowing, SnapshotsOff
from engine.serving.engine import Engine
from engine.serving.errors import SnapshotFailed

R = TypeVar("R")


class StateServicer(state_service_pb2_grpc.StateServiceServicer):
    """Passes on to the engine, one question of a kind at a time."""

    def __init__(self, config: Config, engine: Engine) -> None:
        self._events_topic = config.kafka.events_topic
        self._digests = _OneAtATime(engine.digest)
        self._snapshots = _OneAtATime(engine.snapshot)

    async def GetDigest(
        self, request: state_service_pb2.GetDigestRequest, context: Any
    ) -> state_service_pb2.GetDigestResponse:
        """Digests of a moment after the call came in."""
        digest = await self._digests.ask()
        reflects = _reflects(digest.positions)
        events = {position.partition: position for position in reflects if position.topic == self._events_topic}
        return state_service_pb2.GetDigestResponse(
            partitions=[
                state_service_pb2.PartitionDigest(
                    digest=slice_digest,
                    reflects=events[partition],
                    events_folded=digest.events_folded[partition],
                )
                for partition, slice_digest in sorted(digest.slices.items())
            ],
            catalog_digest=digest.catalog,
            catalog_reflects=[position for position in reflects if position.topic != self._events_topic],
        )

    async def TakeSnapshot(
        self, request: state_service_pb2.TakeSnapshotRequest, context: Any
    ) -> state_service_pb2.TakeSnapshotResponse:
        """Returns once a snapshot taken after the call came in is safe."""
        try:
            positions = await self._snapshots.ask()
        except (NotFollowing, SnapshotsOff):
            raise
        except (OSError, RuntimeError) as error:
            raise SnapshotFailed(f"the snapshot failed, the one before it still counts: {error}") from error
        return state_service_pb2.TakeSnapshotResponse(reflects=_reflects(positions))


class _OneAtATime(Generic[R]):
    """Asks again only once the answer to the last question is there, whether or not anybody waited for it.

    So callers that ask and leave cost the engine the work of one, however many they are.
    """

    def __init__(self, begin: Callable[[], Future[R]]) -> None:
        self._begin = begin
        self._running: asyncio.Future[R] | None = None

    async def ask(self) -> R:
        while self._running is not None and not self._running.done():
            await asyncio.wait([self._running])
        self._running = asyncio.wrap_future(self._begin())
        return await asyncio.shield(self._running)


def _reflects(positions: Mapping[tuple[str, int], int]) -> list[event_pb2.LogPosition]:
    """The last record before each next offset."""
    return [
        event_pb2.LogPosition(topic=topic, partition=partition, offset=offset - 1)
        for (topic, partition), offset in sorted(positions.items())
    ]
