"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import grpc

from ousel import convert
from ousel.channel import CHANNEL_OPTIONS, DEFAULT_ADDRESS, SLOW_TIMEOUT_S, checked_address
from ousel.errors import OuselError, StreamEnded, client_closed, from_call
from ousel.types import (
    Exported,
    Forgotten,
    Position,
    RecommendationList,
    RolledBack,
    StateDigest,
    Status,
    Tracked,
    Update,
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

_OVER = "the stream is over; open a new one"


class AsyncClient:
    """Recommendations from one Ousel engine, in one event loop. Close it or use it in an `async with`.

    Args:
        address: host:port of the engine.
        timeout_s: how long a call may take, retries included, unless it says otherwise.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, timeout_s: float = 5.0) -> None:
        self.address = checked_address(address)
        self._timeout_s = timeout_s
        self._opened: grpc.aio.Channel | None = None

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
        stub = recommender_service_pb2_grpc.RecommenderServiceStub(self._channel)
        return convert.recommendation_list((await self._call(stub.Recommend, request, timeout_s)).list)

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
        stub = recommender_service_pb2_grpc.RecommenderServiceStub(self._channel)
        return AsyncSubscription(stub.StreamRecommendations, query, self.address)

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
        stub = event_service_pb2_grpc.EventServiceStub(self._channel)
        return convert.tracked(await self._call(stub.Track, request, timeout_s))

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
            "", user_id, None, kind, value, time, event_id, attributes, target_user_id=target_user_id, ends=ends
        )
        stub = event_service_pb2_grpc.EventServiceStub(self._channel)
        return convert.tracked(await self._call(stub.Track, event_service_pb2.TrackRequest(event=event), timeout_s))

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
        stub = event_service_pb2_grpc.EventServiceStub(self._channel)
        return convert.tracked(await self._call(stub.Track, event_service_pb2.TrackRequest(event=event), timeout_s))

    async def status(self, *, timeout_s: float | None = None) -> Status:
        """How the engine is doing. Errors: see `Client.status`."""
        stub = model_service_pb2_grpc.ModelServiceStub(self._channel)
        return convert.status(await self._call(stub.GetStatus, model_service_pb2.GetStatusRequest(), timeout_s))

    async def roll_back(self, expected_version: int | None = None, *, timeout_s: float = SLOW_TIMEOUT_S) -> RolledBack:
        """Has the model before the serving one serve again. Arguments and errors: see `Client.roll_back`."""
        stub = model_service_pb2_grpc.ModelServiceStub(self._channel)
        request = convert.roll_back_request(expected_version)
        return convert.rolled_back(await self._call(stub.RollBack, request, timeout_s))

    async def forget_user(
        self, user_id: str | None = None, session_id: str | None = None, *, timeout_s: float | None = None
    ) -> Forgotten:
        """Has a user forgotten for good. Arguments, errors and the answer: see `Client.forget_user`."""
        request = convert.subject_request(privacy_service_pb2.ForgetUserRequest, user_id, session_id)
        stub = privacy_service_pb2_grpc.PrivacyServiceStub(self._channel)
        return convert.forgotten(await self._call(stub.ForgetUser, request, timeout_s))

    async def export_user(
        self, user_id: str | None = None, session_id: str | None = None, *, timeout_s: float | None = None
    ) -> Exported:
        """All that this engine holds about a user. Arguments and errors: see `Client.export_user`."""
        request = convert.subject_request(privacy_service_pb2.ExportUserRequest, user_id, session_id)
        stub = privacy_service_pb2_grpc.PrivacyServiceStub(self._channel)
        return convert.exported(await self._call(stub.ExportUser, request, timeout_s))

    async def get_digest(self, *, timeout_s: float = SLOW_TIMEOUT_S) -> StateDigest:
        """Digests of all that the engine holds. Arguments and errors: see `Client.get_digest`."""
        stub = state_service_pb2_grpc.StateServiceStub(self._channel)
        return convert.state_digest(await self._call(stub.GetDigest, state_service_pb2.GetDigestRequest(), timeout_s))

    async def take_snapshot(self, *, timeout_s: float = SLOW_TIMEOUT_S) -> tuple[Position, ...]:
        """Has the engine take a snapshot. Arguments, errors and the answer: see `Client.take_snapshot`."""
        stub = state_service_pb2_grpc.StateServiceStub(self._channel)
        request = state_service_pb2.TakeSnapshotRequest()
        return convert.positions((await self._call(stub.TakeSnapshot, request, timeout_s)).reflects)

    async def close(self) -> None:
        """Ends every call and stream. Safe to call twice."""
        if self._opened is not None:
            await self._opened.close(None)

    @property
    def _channel(self) -> grpc.aio.Channel:
        # Made on first use, because a channel belongs to the event loop that runs when it is made.
        if self._opened is None:
            self._opened = grpc.aio.insecure_channel(self.address, options=CHANNEL_OPTIONS)
        return self._opened

    async def _call(self, method: Callable[..., Any], request: Any, timeout_s: float | None) -> Any:
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            return await method(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise from_call(error, self.address, timeout_s) from None
        except grpc.aio.UsageError:
            raise client_closed() from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


class AsyncSubscription:
    """The lists of one stream, latest wins: who reads slowly skips lists. Made by `AsyncClient.stream`.

    One task iterates; any task may track, resubscribe or close. Iteration ends when the stream is closed here or by the
    engine. Cancelling a read or a send, by a timeout say, ends the stream: that is gRPC's rule.
    """

    def __init__(self, method: Callable[..., Any], query: recommender_service_pb2.Query, address: str) -> None:
        self._method = method
        self._query = query
        self._address = address
        self._closed = False
        self._call: Any = None  # an open grpc.aio.StreamStreamCall
        self._writing = asyncio.Lock()  # gRPC takes one message at a time

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update:
        """Waits for the next list.

        Raises:
            OuselError: the stream broke; `Unavailable` where a new one is worth a try.
        """
        try:
            with self._plain_errors():
                await self._open()
                message = await self._call.read()
        except OuselError:
            if self._closed:
                raise StopAsyncIteration from None
            raise
        if message is grpc.aio.EOF:  # type: ignore[attr-defined]
            raise StopAsyncIteration
        return convert.update(message)

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
    ) -> str:
        """Sends one event on this stream and returns its id, without waiting for the log.

        What is on its way when the stream ends is lost; `AsyncClient.track` confirms. Whose event it is, how to sign
        in, and the other arguments: see `Subscription.track`.

        Raises:
            InvalidArgument: the event would be somebody else's than the subscriber's.
            OuselError: the stream broke; `StreamEnded` where it was over before.
        """
        async with self._ready_to_write():
            whose = convert.subscriber(self._query, user_id, session_id)
            event = convert.event_message(item_id, *whose, kind, value, time, event_id, attributes)
            await self._call.write(recommender_service_pb2.StreamRecommendationsRequest(event=event))
        return event.event_id

    async def resubscribe(
        self,
        user_id: str | None = None,
        session_id: str | None = None,
        k: int | None = None,
        *,
        categories: Iterable[str] = (),
        exclude_item_ids: Iterable[str] = (),
        exclude_history: bool = False,
    ) -> None:
        """Replaces the whole query of this stream. Arguments: see `Client.recommend`. Raises: see `track`."""
        query = convert.query_message(user_id, session_id, k, categories, exclude_item_ids, exclude_history)
        async with self._ready_to_write():
            await self._call.write(recommender_service_pb2.StreamRecommendationsRequest(subscribe=query))
            self._query = query

    async def close(self) -> None:
        """Ends the stream. Safe to call twice."""
        self._closed = True
        if self._call is not None:
            self._call.cancel()

    async def _open(self) -> None:
        async with self._writing:
            if self._closed:
                raise StreamEnded(_OVER)
            if self._call is None:
                self._call = self._method()
                await self._call.write(recommender_service_pb2.StreamRecommendationsRequest(subscribe=self._query))

    @asynccontextmanager
    async def _ready_to_write(self) -> AsyncIterator[None]:
        """The stream is open and nobody else writes. An event is the subscriber's as of the message before it."""
        with self._plain_errors():
            await self._open()
            async with self._writing:
                yield

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise from_call(error, self._address, None) from None
        except grpc.aio.UsageError:
            raise client_closed() from None
        except asyncio.InvalidStateError:
            raise StreamEnded(_OVER) from None
        except asyncio.CancelledError:
            # gRPC raises this too where the call was cancelled and this task was not.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise StreamEnded(_OVER) from None

    async def __aenter__(self) -> Self:
        with self._plain_errors():
            await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
