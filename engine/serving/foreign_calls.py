"""Health and reflection, bounded: their servicers are gRPC's own, and know no limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from engine import metrics
from engine.security.guard import Guard
from engine.serving.errors import SHUTTING, ShuttingDown, status_of
from engine.serving.first_message import FirstMessages
from engine.serving.requests import lenient, read_request
from engine.waiting import Overloaded

_MAX_OPEN = 1000  # streams of one method: a load balancer watches by one, a tool reflects by one
_REFLECTION_S = 60.0  # that a reflecting client may keep its stream

Behavior = Callable[[Any, Any], Awaitable[Any]]


def wrap_foreign(
    handler: Any, method: str, first: FirstMessages, guard: Guard, closing: asyncio.Event
) -> grpc.RpcMethodHandler:
    """The handler of a method that is not ours: asked of `guard`, within the limits of `first` and of open streams.

    Args:
        closing: once it is set, whoever watches is sent away; gRPC would wait for them until the grace is over.
    """

    async def unary(_: Any, context: Any) -> Any:
        return await handler.unary_unary(await first.request(context), context)

    async def watched(_: Any, context: Any) -> None:
        request = await first.request(context)
        with opened:
            await _until(closing, handler.unary_stream(request, context))

    async def reflected(_: Any, context: Any) -> None:
        with opened:
            async with asyncio.timeout(_REFLECTION_S):
                async for answer in handler.stream_stream(_requests(context), context):
                    await context.write(answer)

    opened = _Open(method)
    behavior: Behavior
    make: Any = grpc.stream_stream_rpc_method_handler
    if handler.unary_unary:
        behavior, make = unary, grpc.stream_unary_rpc_method_handler
    else:
        behavior = watched if handler.unary_stream else reflected
    guarded = guard.guarded(method, behavior, lasting=not handler.unary_unary)
    wrapped: grpc.RpcMethodHandler = make(
        _with_status(guarded), lenient(handler.request_deserializer, guard.longest(method)), handler.response_serializer
    )
    return wrapped


async def _until(closing: asyncio.Event, watching: Awaitable[None]) -> None:
    """Waits for the end of `watching`, or ends it.

    Raises:
        ShuttingDown: `closing` was set first.
    """
    watcher, closed = asyncio.ensure_future(watching), asyncio.ensure_future(closing.wait())
    try:
        await asyncio.wait([watcher, closed], return_when=asyncio.FIRST_COMPLETED)
        if not watcher.done():
            raise ShuttingDown(SHUTTING)
        watcher.result()
    finally:
        for one in (watcher, closed):
            one.cancel()
        await asyncio.wait([watcher, closed])


async def _requests(context: Any) -> AsyncIterator[Any]:
    """The messages of a stream; raises InvalidRequest for one that is none."""
    while (message := await read_request(context)) is not None:
        yield message


class _Open:
    """Counts the streams of a method, in a `with` each."""

    def __init__(self, method: str) -> None:
        self._method = method
        self._count = 0

    def __enter__(self) -> None:
        if self._count >= _MAX_OPEN:
            metrics.HEALTH_STREAMS_REFUSED.labels(self._method).inc()
            raise Overloaded(f"at most {_MAX_OPEN} streams of {self._method} may be open, try again later")
        self._count += 1

    def __exit__(self, *_: object) -> None:
        self._count -= 1


def _with_status(inner: Behavior) -> Behavior:
    async def behavior(request: Any, context: Any) -> Any:
        try:
            return await inner(request, context)
        except (grpc.aio.AbortError, grpc.aio.InternalError):  # it has a status, or its client has left
            raise
        except Exception as error:
            status = status_of(error)
        return await context.abort(status.code, status.details, status.trailing_metadata)

    return behavior
