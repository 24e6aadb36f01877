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
from engine.waiting import Overloaded

R = TypeVar("R")

_MAX_WAITING = 1000  # calls that share the next answer
_REST, _MOST_REST_S = 4.0, 30.0  # times as long as an answer took, and seconds at most


class StateServicer(state_service_pb2_grpc.StateServiceServicer):
    """Passes on to the engine, one question of a kind at a time, for all who ask meanwhile."""

    def __init__(self, config: Config, engine: Engine) -> None:
        self._events_topic = config.kafka.events_topic
        self._digests = _Shared(engine.digest)
        self._snapshots = _Shared(engine.snapshot)

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
        except (NotFollowing, Overloaded, SnapshotsOff):
            raise
        except (OSError, RuntimeError) as error:
            raise SnapshotFailed(f"the snapshot failed, the one before it still counts: {error}") from error
        return state_service_pb2.TakeSnapshotResponse(reflects=_reflects(positions))


class _Shared(Generic[R]):
    """Asks one question after the other; all callers who come while one is being answered share the next.

    So callers that ask at once, or that ask and leave, cost the engine the work of one, however many they are; and it
    rests between two answers, in proportion to what they took.
    """

    def __init__(self, begin: Callable[[], Future[R]]) -> None:
        self._begin = begin
        self._running: asyncio.Task[R] | None = None
        self._next: asyncio.Task[R] | None = None  # has not asked yet
        self._waiting = 0
        self._rest_until_s = 0.0

    async def ask(self) -> R:
        """The answer to a question that was asked after this call.

        Raises:
            Overloaded: too many wait already.
        """
        if self._waiting >= _MAX_WAITING:
            raise Overloaded(f"at most {_MAX_WAITING} calls may wait for this answer, try again later")
        if self._next is None:
            self._next = asyncio.create_task(self._answer(self._running))
            self._next.add_done_callback(lambda task: task.cancelled() or task.exception())  # Nobody may wait for it.
        self._waiting += 1
        try:
            return await asyncio.shield(self._next)
        finally:
            self._waiting -= 1

    async def _answer(self, before: asyncio.Task[R] | None) -> R:
        loop = asyncio.get_running_loop()
        if before is not None and not before.done():
            await asyncio.wait([before])
        while (rest_s := self._rest_until_s - loop.time()) > 0:
            await asyncio.sleep(rest_s)
        self._running, self._next = self._next, None
        began_s = loop.time()
        try:
            return await asyncio.wrap_future(self._begin())
        finally:
            self._rest_until_s = loop.time() + min(_MOST_REST_S, _REST * (loop.time() - began_s))


def _reflects(positions: Mapping[tuple[str, int], int]) -> list[event_pb2.LogPosition]:
    """The last record before each next offset."""
    return [
        event_pb2.LogPosition(topic=topic, partition=partition, offset=offset - 1)
        for (topic, partition), offset in sorted(positions.items())
    ]
