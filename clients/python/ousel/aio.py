"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeVar
from weakref import WeakSet

import grpc

from ousel import convert, convert_models
from ousel.aio_subscription import AsyncSubscription, is_cancelled, running_loop
from ousel.arguments import seconds, text
from ousel.channel import DEFAULT_ADDRESS, RESUME_S, SLOW_TIMEOUT_S, engines
from ousel.credentials import Credentials
from ousel.errors import OuselError, client_closed, from_call, no_answer, plain_reading, wrong_loop
from ousel.model_types import ModelList, RolledBack
from ousel.status import Status
from ousel.types import (
    Exported,
    Forgotten,
    Position,
    Query,
    RecommendationList,
    StateDigest,
    Tracked,
)
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

Answer = TypeVar("Answer")


class AsyncClient:
    """Recommendations from Ousel engines, in one event loop. Close it or use it in an `async with`.

    Arguments and errors: see `Client`.
    """

    def __init__(
        self,
        address: str | Sequence[str] = DEFAULT_ADDRESS,
        timeout_s: float = 5.0,
        *,
        credentials: Credentials | None = None,
        resume_s: float = RESUME_S,
    ) -> None:
        self._engines = engines(address, credentials)
        self._resume_s = seconds("resume_s", resume_s)
        self.address = self._engines.name
        self._timeout_s = seconds("timeout_s", timeout_s)
        self._opened: grpc.aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # in which the channel was opened
        self._calls: WeakSet[Any] = WeakSet()  # a channel that closes does not find every stream that is open
        self._closed = False

    async def recommend(
        self,
        user_id: str | None = None,
        session_id: str | None = None,
        k: int | None = None,
        *,
        categories: Iterable[str] = (),
        exclude_item_ids: Iterable[str] = (),
        exclude_history: bool = False,
        after: Position | None = None,
        timeout_s: float | None = None,
    ) -> RecommendationList:
        """One ranked list, now, for a user or an anonymous session. Arguments and errors: see `Client.recommend`."""
        query = convert.query_message(user_id, session_id, k, categories, exclude_item_ids, exclude_history)
        request = recommender_service_pb2.RecommendRequest(query=query, after=convert.after_message(after))
        stub = recommender_service_pb2_grpc.RecommenderServiceStub(self._channel())
        return await self._call(stub.Recommend, request, timeout_s, convert.recommended)

    async def recommend_batch(
        self, queries: Iterable[Query], *, timeout_s: float | None = None
    ) -> tuple[RecommendationList | OuselError, ...]:
        """Lists for many at once. Arguments, answers and errors: see `Client.recommend_batch`."""
        request = convert.batch_request(queries)
        stub = recommender_service_pb2_grpc.RecommenderServiceStub(self._channel())
        return await self._call(
            stub.RecommendBatch, request, timeout_s, lambda answer: convert.batch(answer, self.address)
        )

    def stream(
        self,
        user_id: str | None = None,
        session_id: str | None = None,
        k: int | None = None,
        *,
        categories: Iterable[str] = (),
        exclude_item_ids: Iterable[str] = (),
        exclude_history: bool = False,
    ) -> AsyncSubscription:
        """Subscribes: a list comes at once, then a new one whenever events, the model or the catalog change it.

        The stream opens when it is entered, first read or first sent on. Arguments: see `Client.recommend`.
        """
        query = convert.query_message(user_id, session_id, k, categories, exclude_item_ids, exclude_history)
        if self._closed:
            raise client_closed()
        return AsyncSubscription(self._open_stream, query, self.address, self._resume_s)

    def _open_stream(self) -> Any:
        stub = recommender_service_pb2_grpc.RecommenderServiceStub(self._channel())
        call = stub.StreamRecommendations(metadata=self._engines.metadata())
        self._calls.add(call)
        return call

    async def track(
        self,
        item_id: str,
        user_id: str | None = None,
        session_id: str | None = None,
        kind: str = "view",
        value: float = 1.0,
        time: datetime | None = None,
        event_id: str | None = None,
        attributes: Mapping[str, str] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Tracked:
        """Writes one event to the log and returns once the log has it. Arguments and errors: see `Client.track`."""
        event = convert.event_message(item_id, user_id, session_id, kind, value, time, event_id, attributes)
        request = event_service_pb2.TrackRequest(event=event)
        stub = event_service_pb2_grpc.EventServiceStub(self._channel())
        return await self._call(stub.Track, request, timeout_s, convert.tracked)

    async def relate_users(
        self,
        user_id: str,
        target_user_id: str,
        kind: str = "",
        value: float = 1.0,
        time: datetime | None = None,
        event_id: str | None = None,
        attributes: Mapping[str, str] | None = None,
        *,
        ends: bool = False,
        timeout_s: float | None = None,
    ) -> Tracked:
        """Writes to the log that a user is related to another, or no longer is. See `Client.relate_users`."""
        event = convert.event_message(
            "",
            text("user_id", user_id),
            None,
            kind,
            value,
            time,
            event_id,
            attributes,
            target_user_id=target_user_id,
            ends=ends,
        )
        stub = event_service_pb2_grpc.EventServiceStub(self._channel())
        request = event_service_pb2.TrackRequest(event=event)
        return await self._call(stub.Track, request, timeout_s, convert.tracked)

    async def relate_item(
        self,
        item_id: str,
        entity_id: str,
        kind: str = "",
        value: float = 1.0,
        time: datetime | None = None,
        event_id: str | None = None,
        attributes: Mapping[str, str] | None = None,
        *,
        ends: bool = False,
        timeout_s: float | None = None,
    ) -> Tracked:
        """Writes to the log that an item has an entity, or no longer has it. See `Client.relate_item`."""
        event = convert.event_message(
            item_id, None, None, kind, value, time, event_id, attributes, entity_id=entity_id, ends=ends
        )
        stub = event_service_pb2_grpc.EventServiceStub(self._channel())
        request = event_service_pb2.TrackRequest(event=event)
        return await self._call(stub.Track, request, timeout_s, convert.tracked)

    async def status(self, *, timeout_s: float | None = None) -> Status:
        """How the engine is doing. Errors: see `Client.status`."""
        stub = model_service_pb2_grpc.ModelServiceStub(self._channel())
        return await self._call(stub.GetStatus, model_service_pb2.GetStatusRequest(), timeout_s, convert.status)

    async def roll_back(
        self, expected_version: int | None = None, *, timeout_s: float | None = SLOW_TIMEOUT_S
    ) -> RolledBack:
        """Has the model before the serving one serve again. Arguments and errors: see `Client.roll_back`."""
        stub = model_service_pb2_grpc.ModelServiceStub(self._channel())
        request = convert_models.roll_back_request(expected_version)
        return await self._call(stub.RollBack, request, timeout_s, convert_models.rolled_back)

    async def list_models(self, *, timeout_s: float | None = None) -> ModelList:
        """The models of the registry, and what this engine makes of them. Errors: see `Client.list_models`."""
        stub = model_service_pb2_grpc.ModelServiceStub(self._channel())
        request = model_service_pb2.ListModelsRequest()
        return await self._call(stub.ListModels, request, timeout_s, convert_models.model_list)

    async def pin_model(self, version: int, *, timeout_s: float | None = SLOW_TIMEOUT_S) -> int:
        """Has all engines serve this version until `unpin_model`. Errors and the answer: see `Client.pin_model`."""
        stub = model_service_pb2_grpc.ModelServiceStub(self._channel())
        return await self._call(stub.PinModel, convert_models.pin_request(version), timeout_s, convert_models.pinned)

    async def unpin_model(self, *, timeout_s: float | None = SLOW_TIMEOUT_S) -> int:
        """Has all engines serve the newest version again. Errors and the answer: see `Client.unpin_model`."""
        stub = model_service_pb2_grpc.ModelServiceStub(self._channel())
        request = model_service_pb2.UnpinModelRequest()
        return await self._call(stub.UnpinModel, request, timeout_s, convert_models.unpinned)

    async def prune_models(
        self, keep: int | None = None, *, timeout_s: float | None = SLOW_TIMEOUT_S
    ) -> tuple[int, ...]:
        """Deletes old models of the registry. Arguments, errors and the answer: see `Client.prune_models`."""
        stub = model_service_pb2_grpc.ModelServiceStub(self._channel())
        request = convert_models.prune_request(keep)
        return await self._call(stub.PruneModels, request, timeout_s, convert_models.pruned)

    async def forget_user(
        self, user_id: str | None = None, session_id: str | None = None, *, timeout_s: float | None = None
    ) -> Forgotten:
        """Has a user forgotten for good. Arguments, errors and the answer: see `Client.forget_user`."""
        request = convert.subject_request(privacy_service_pb2.ForgetUserRequest, user_id, session_id)
        stub = privacy_service_pb2_grpc.PrivacyServiceStub(self._channel())
        return await self._call(stub.ForgetUser, request, timeout_s, convert.forgotten)

    async def export_user(
        self, user_id: str | None = None, session_id: str | None = None, *, timeout_s: float | None = None
    ) -> Exported:
        """All that this engine holds about a user. Arguments and errors: see `Client.export_user`."""
        request = convert.subject_request(privacy_service_pb2.ExportUserRequest, user_id, session_id)
        stub = privacy_service_pb2_grpc.PrivacyServiceStub(self._channel())
        return await self._call(stub.ExportUser, request, timeout_s, convert.exported)

    async def get_digest(self, *, timeout_s: float | None = SLOW_TIMEOUT_S) -> StateDigest:
        """Digests of all that the engine holds. Arguments and errors: see `Client.get_digest`."""
        stub = state_service_pb2_grpc.StateServiceStub(self._channel())
        request = state_service_pb2.GetDigestRequest()
        return await self._call(stub.GetDigest, request, timeout_s, convert.state_digest)

    async def take_snapshot(self, *, timeout_s: float | None = SLOW_TIMEOUT_S) -> tuple[Position, ...]:
        """Has the engine take a snapshot. Arguments, errors and the answer: see `Client.take_snapshot`."""
        stub = state_service_pb2_grpc.StateServiceStub(self._channel())
        request = state_service_pb2.TakeSnapshotRequest()
        return await self._call(stub.TakeSnapshot, request, timeout_s, convert.snapshot_taken)

    async def close(self) -> None:
        """Ends every call and stream. Safe to call twice."""
        self._closed = True
        if self._opened is None or self._loop is None or not self._loop.is_running():
            return  # A loop that is over has ended what was open in it.
        if self._loop is asyncio.get_running_loop():
            await self._end()
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._end(), self._loop))

    async def _end(self) -> None:
        for call in list(self._calls):
            call.cancel()
        if self._opened is not None:
            await self._opened.close(None)

    def _channel(self) -> grpc.aio.Channel:
        """Opened on first use, because a channel belongs to the event loop that runs when it is opened."""
        if self._closed:
            raise client_closed()
        loop = running_loop()
        if self._opened is None:
            self._opened, self._loop = self._engines.open_aio(), loop
        if loop is not self._loop:
            raise wrong_loop()
        return self._opened

    async def _call(
        self, method: Callable[..., Any], request: Any, timeout_s: float | None, read: Callable[[Any], Answer]
    ) -> Answer:
        """What `read` makes of the engine's answer."""
        timeout_s = self._timeout_s if timeout_s is None else seconds("timeout_s", timeout_s)
        if timeout_s <= 0:  # which gRPC takes for no limit, or for one, depending on the version
            raise no_answer(self.address, timeout_s)
        began_s = monotonic()
        try:
            call = method(request, timeout=timeout_s, metadata=self._engines.metadata())
            self._calls.add(call)
            message = await call
        except grpc.aio.AioRpcError as error:
            took_s = monotonic() - began_s
            raise client_closed() if self._closed else from_call(error, self.address, timeout_s, took_s) from None
        except grpc.aio.BaseError:  # The channel is closed: gRPC has no other reason before a call has begun.
            raise client_closed() from None
        except asyncio.CancelledError:
            if is_cancelled() or not self._closed:
                raise
            raise client_closed() from None  # which cancels what waits for an answer
        with plain_reading(self.address):
            return read(message)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
