"""One open stream of the client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import grpc

from ousel import convert
from ousel.errors import OuselError, StreamEnded, client_closed, from_call, from_status, plain_reading, wrong_loop
from ousel.resume import Message, Progress
from ousel.types import Update
from ousel.v1 import recommender_service_pb2

_OVER = "the stream is over; open a new one"
_END_S = 1.0  # in which a call whose write has failed tells how it has ended


def running_loop() -> asyncio.AbstractEventLoop:
    """The event loop that runs now.

    Raises:
        OuselError: none does.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise wrong_loop() from None


def is_cancelled() -> bool:
    """Whether the running task is to end; gRPC raises the same error where only a call was cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class AsyncSubscription:
    """The lists of one stream, latest wins: who reads slowly skips lists. Made by `AsyncClient.stream`.

    One task iterates; any task may track, resubscribe or close. Iteration ends when the stream is closed here or by the
    engine. Where the engine goes away, iterating resumes the stream at the same one or another. Cancelling a read or a
    send, by a timeout say, ends the stream: that is gRPC's rule. One that is dropped
    without being closed is closed as soon as Python collects it.

    Args:
        open_call: opens the gRPC call, in the event loop that runs.
    """

    def __init__(
        self, open_call: Callable[[], Any], query: recommender_service_pb2.Query, address: str, resume_s: float
    ) -> None:
        self._progress = Progress(resume_s)
        self._open_call = open_call
        self._query = query
        self._address = address
        self._closed = False
        self._call: Any = None  # an open grpc.aio.StreamStreamCall
        self._loop: asyncio.AbstractEventLoop | None = None  # in which it was opened
        self._writing = asyncio.Lock()  # gRPC takes one message at a time

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update:
        """Waits for the next list.

        Raises:
            OuselError: the stream broke; `Unavailable` where a new one is worth a try.
        """
        while True:
            try:
                with self._plain_errors():
                    await self._open()
                    message = await self._call.read()
            except OuselError as failure:
                if self._closed:
                    raise StopAsyncIteration from None
                await self._resume(failure)
                continue
            if message is grpc.aio.EOF:  # type: ignore[attr-defined]
                raise StopAsyncIteration
            with plain_reading(self._address):
                update = convert.update(message)
            if self._progress.is_news(update.list):
                return update

    async def _resume(self, failure: OuselError) -> None:
        """Waits, so that the next read opens the next call; raises `failure` where the stream does not go on."""
        if not self._progress.may_resume(failure):
            raise failure from None
        await asyncio.sleep(self._progress.wait_s(failure))
        async with self._writing:
            self._call = None

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

        What is on its way when the stream ends is lost; `AsyncClient.track` confirms. Where the stream is resumed, it
        is sent again, and counts once. Whose event it is, how to sign
        in, and the other arguments: see `Subscription.track`.

        Raises:
            InvalidArgument: the event would be somebody else's than the subscriber's.
            OuselError: the stream broke; `StreamEnded` where it was over before.
        """
        async with self._ready_to_write():
            whose = convert.subscriber(self._query, user_id, session_id)
            event = convert.event_message(item_id, *whose, kind, value, time, event_id, attributes)
            await self._send(Message(event=event))
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
            await self._send(Message(subscribe=query))
            self._query = query

    async def _send(self, message: Message) -> None:
        self._progress.passed(message)
        await self._write([message])

    async def _write(self, messages: Iterable[Message]) -> None:
        """Writes messages. Those that find the engine gone are said again once reading has resumed the stream."""
        try:
            for message in messages:
                await self._call.write(message)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            if self._progress.is_full or not await self._is_lost():
                raise

    async def _is_lost(self) -> bool:
        """Whether the call has ended in a way after which reading goes on with another."""
        call = self._call
        try:
            # gRPC may fail a write a moment before it tells how the call has ended.
            code = await asyncio.wait_for(call.code(), _END_S)
        except TimeoutError:
            return False
        ended = from_status(code, await call.details(), self._address, None)
        return self._progress.may_resume(ended)

    async def close(self) -> None:
        """Ends the stream. Safe to call twice."""
        self._closed = True
        if self._call is not None and self._loop is asyncio.get_running_loop():
            self._call.cancel()
        else:
            self._cancel_elsewhere()

    def __del__(self) -> None:
        # From grpcio 1.83 on nothing collects an open call (grpc/grpc#43462), and the engine would go on sending to it.
        self._cancel_elsewhere()

    def _cancel_elsewhere(self) -> None:
        """Cancels an open call in its own event loop, from any thread: Python collects objects in any."""
        call, loop = getattr(self, "_call", None), getattr(self, "_loop", None)
        if call is None or loop is None or call.done():
            return
        try:
            loop.call_soon_threadsafe(call.cancel)
        except RuntimeError:  # The loop is over, and the call with it.
            pass

    async def _open(self) -> None:
        async with self._writing:
            if self._closed:
                raise StreamEnded(_OVER)
            if self._call is None:
                self._call, self._loop = self._open_call(), asyncio.get_running_loop()
                messages = self._progress.opening() or [Message(subscribe=self._query)]
                for message in messages:
                    self._progress.passed(message)
                await self._write(messages)
            elif self._loop is not asyncio.get_running_loop():
                raise wrong_loop()

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
        except grpc.aio.BaseError:  # The channel is closed: gRPC has no other reason before a call has begun.
            raise client_closed() from None
        except asyncio.InvalidStateError:
            raise StreamEnded(_OVER) from None
        except asyncio.CancelledError:
            if is_cancelled():
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
