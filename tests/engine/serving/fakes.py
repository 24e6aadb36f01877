"""An engine and a log that do as they are told, and a server around them on free ports."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TypeVar

import grpc
import numpy as np
from ousel.v1 import (
    event_pb2,
    event_service_pb2_grpc,
    model_service_pb2_grpc,
    privacy_service_pb2_grpc,
    recommender_service_pb2,
    recommender_service_pb2_grpc,
    state_service_pb2_grpc,
)

from engine.generations import StaleVersion
from engine.ranking.list_bases import ListBases, Place
from engine.ranking.query import Basis, Cause, Origin, Position, Query, RankedItem, Ranking, Source
from engine.registry.ledger import Ledger
from engine.registry.models import ModelList, RolledBack
from engine.registry.registry import Push
from engine.registry.standing import Standing
from engine.serving.server import Server
from engine.serving.subscriptions import Subscriptions
from engine.state.digest import StateDigest
from engine.state.export import Subject
from engine.status import EngineStatus

T = TypeVar("T")


NOTHING = np.zeros(0, np.float32)
BASIS = Basis(Query("u1", "", 5), 3, np.zeros(0, np.int32), NOTHING, NOTHING, None, 0.0, 0, -1, 0)


def ranking(*item_ids: str, score: float = 0.5, origin: Origin = Origin.MODEL, title: str = "title") -> Ranking:
    """A list of these items, each with the same score and title."""
    items = tuple(RankedItem(item_id, title, score, (Source.INDEX, Source.POPULAR)) for item_id in item_ids)
    return Ranking(items, origin, True, 3, (Position("ousel.events", 1, 41),), replace(BASIS))


class Change:
    """A change of the catalog that concerns the lists of some users, or those of all."""

    def __init__(self, *users: str, forbids: tuple[str, ...] = ()) -> None:
        self._users, self._forbids = users, forbids

    def concerns(self, bases: ListBases) -> list[Place]:
        return [place for place, query in bases.places() if not self._users or query.user_id in self._users]

    def forbids(self, bases: ListBases) -> list[Place]:
        return [place for place, query in bases.places() if query.user_id in self._forbids]


class FakeEngine:
    """Answers in the caller's thread, from `lists`, unless told to hold or to raise."""

    def __init__(self) -> None:
        self.subscriptions = Subscriptions(limit=100, wake=self.publish)
        self.lists: Callable[[Query], Ranking] = lambda query: ranking("a", "b")
        self.asked: list[Query] = []
        self.asked_after: list[Position | None] = []
        self.asked_futures: list[Future[Ranking]] = []
        self.held: tuple[Subject, ...] = ()
        self.exported: list[str] = []
        self.exports: list[Future[tuple[Subject, ...]]] = []
        self.state = StateDigest({}, "", {}, {})
        self.digests: list[Future[StateDigest]] = []
        self.safe: Mapping[tuple[str, int], int] = {}
        self.snapshots: list[Future[Mapping[tuple[str, int], int]]] = []
        self.snapshot_time_s: float | None = 1_700_000_000.123
        self.ready = self.caught_up = True
        self.hold = False
        self.refuse_snapshots: Exception | None = None
        self.refuse_asking: Exception | None = None

    def ask(self, query: Query, after: Position | None = None) -> Future[Ranking]:
        if self.refuse_asking:
            raise self.refuse_asking
        self.asked.append(query)
        self.asked_after.append(after)
        answer: Future[Ranking] = Future()
        self.asked_futures.append(answer)
        if not self.hold:
            answer.set_result(self.lists(query))
        return answer

    def ask_all(self, queries: Sequence[Query]) -> list[Future[Ranking]]:
        return [self.ask(query) for query in queries]

    def export(self, subject: str) -> Future[tuple[Subject, ...]]:
        self.exported.append(subject)
        return self._answer(self.exports, self.held)

    def digest(self) -> Future[StateDigest]:
        answer = self._answer(self.digests, self.state)
        answer.cancel = lambda: False  # as the engine's
        return answer

    def snapshot(self) -> Future[Mapping[tuple[str, int], int]]:
        if self.refuse_snapshots:
            raise self.refuse_snapshots
        answer = self._answer(self.snapshots, self.safe)
        answer.cancel = lambda: False
        return answer

    def _answer(self, given: list[Future[T]], value: T) -> Future[T]:
        answer: Future[T] = Future()
        given.append(answer)
        if not self.hold:
            answer.set_result(value)
        return answer

    def status(self) -> EngineStatus:
        return EngineStatus(
            ready=self.ready,
            caught_up=self.caught_up,
            model_version=3,
            model_metrics={"hit_rate@20": 0.25},
            model_versions=(2, 3),
            users=10,
            items=20,
            index_items=19,
            events_folded=1000,
            items_folded=21,
            events_dead_lettered=4,
            lag=7,
            reflects=(Position("ousel.events", 0, 99),),
            uptime_s=1.5,
            partitions=(0, 2),
            partitions_total=4,
            users_limit=500,
            users_evicted=11,
            items_evicted=12,
            users_forgotten=13,
            events_duplicate=14,
            records_redelivered=15,
            targets=16,
            targets_evicted=17,
            snapshot_time_s=self.snapshot_time_s,
        )

    def publish(self) -> None:
        """What the engine's thread does at each step."""
        for due in self.subscriptions.due(64):
            self.subscriptions.deliver(due, self.lists(due.query))

    def change(self, *subjects: str, model: bool = False, catalog: bool = False) -> None:
        self.subscriptions.mark(subjects, model=model)
        if catalog:
            self.subscriptions.mark_catalog(Change())
        self.publish()


class FakeModels:
    """A registry that takes what it gets, unless told to hold or to refuse; it answers in the caller's thread.

    Attributes:
        ledger: what the topic is said to hold.
        taken: the pushes.
        asked: all else that it was asked for, in order.
        may_answer: while it is not set, whatever changes the registry waits.
    """

    def __init__(self) -> None:
        self.newest = 3
        self.ledger = Ledger(newest=3)
        self.standing_now = Standing()
        self.taken: list[Push] = []
        self.asked: list[tuple[object, ...]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.waiting = 0
        self.refuse: Exception | None = None

    def check_version(self, version: int) -> int:
        if version <= self.newest:
            raise StaleVersion(f"version must be > {self.newest}, the newest of the registry, got {version}")
        return self.newest

    def accept(self, push: Push) -> Ledger:
        self.taken.append(push)
        self._answer()
        self.newest = push.version
        return self.ledger

    def roll_back(self, expected: int | None, by: str) -> RolledBack:
        self.asked.append(("roll back", expected, by.partition(":")[0]))
        self._answer()
        return RolledBack(2, True)

    def pin(self, version: int | None, by: str) -> Ledger:
        self.asked.append(("pin", version, by.partition(":")[0]))
        self._answer()
        return self.ledger

    def prune(self, keep: int | None) -> list[int]:
        self.asked.append(("prune", keep))
        self._answer()
        return [2, 1]

    def listed(self) -> ModelList:
        return ModelList(self.ledger, self.standing_now, 3, "s3://shop/models", "ousel.models")

    def standing(self) -> Standing:
        return self.standing_now

    def _answer(self) -> None:
        self.waiting += 1
        assert self.may_answer.wait(10)
        if self.refuse is not None:
            raise self.refuse


class FakeLog:
    """Keeps what is sent; acknowledges at once unless told to hold or to fail.

    Attributes:
        partitions: of the topic, to which events that forget go.
    """

    def __init__(self) -> None:
        self.events: list[event_pb2.Event] = []
        self.partitions = 3
        self.acknowledgements: list[Future[event_pb2.LogPosition]] = []
        self.hold = False
        self.failure: Exception | None = None
        self.refuse: Exception | None = None

    def send_event(self, event: event_pb2.Event) -> Future[event_pb2.LogPosition]:
        return self._to(2, event)

    def send_forget(self, event: event_pb2.Event) -> list[Future[event_pb2.LogPosition]]:
        return [self._to(partition, event) for partition in range(self.partitions)]

    def _to(self, partition: int, event: event_pb2.Event) -> Future[event_pb2.LogPosition]:
        if self.refuse:
            raise self.refuse
        future: Future[event_pb2.LogPosition] = Future()
        future.set_running_or_notify_cancel()
        kept = event_pb2.Event()
        kept.CopyFrom(event)
        self.events.append(kept)
        self.acknowledgements.append(future)
        if self.failure:
            future.set_exception(self.failure)
        elif not self.hold:
            offset = len(self.events) - 1
            future.set_result(event_pb2.LogPosition(topic="ousel.events", partition=partition, offset=offset))
        return future


@dataclass
class Served:
    """A running server and stubs to call it."""

    server: Server
    engine: FakeEngine
    log: FakeLog
    channel: grpc.aio.Channel

    def __post_init__(self) -> None:
        self.models: FakeModels = self.server._registry
        self.recommender = recommender_service_pb2_grpc.RecommenderServiceStub(self.channel)
        self.events = event_service_pb2_grpc.EventServiceStub(self.channel)
        self.model = model_service_pb2_grpc.ModelServiceStub(self.channel)
        self.privacy = privacy_service_pb2_grpc.PrivacyServiceStub(self.channel)
        self.state = state_service_pb2_grpc.StateServiceStub(self.channel)

    @property
    def subscriptions(self) -> Subscriptions:
        return self.engine.subscriptions


class Stream:
    """A client's end of StreamRecommendations."""

    def __init__(self, served: Served, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self.call = served.recommender.StreamRecommendations(metadata=metadata)

    async def subscribe(self, **query: object) -> None:
        message = recommender_service_pb2.Query(**{"user_id": "u1", "k": 5, **query})
        await self.call.write(recommender_service_pb2.StreamRecommendationsRequest(subscribe=message))

    async def send(self, **event: object) -> None:
        message = event_pb2.Event(**event)
        await self.call.write(recommender_service_pb2.StreamRecommendationsRequest(event=message))

    async def list(self) -> tuple[list[str], Cause]:
        """The next list's items and its cause."""
        async with asyncio.timeout(30):
            message = await self.call.read()
        return [item.item_id for item in message.list.items], Cause(message.cause)

    async def end(self) -> tuple[grpc.StatusCode, str]:
        """Reads to the end: how the server ended the stream."""
        async with asyncio.timeout(30):
            try:
                while await self.call.read() is not grpc.aio.EOF:
                    pass
            except grpc.aio.AioRpcError:
                pass
            return await self.call.code(), await self.call.details()


def our_tasks() -> set[str]:
    """Names of coroutines of the servicer that still run."""
    running = {getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()}
    return {name for name in running if "RecommenderServicer" in name or "behavior" in name}


async def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for a condition, at most 30 s."""
    try:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError(f"not within 30 s: {what}") from None


async def failure(call: object) -> tuple[grpc.StatusCode, str]:
    """The status of a call that must fail."""
    try:
        async with asyncio.timeout(30):
            await call
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError("the call succeeded")
