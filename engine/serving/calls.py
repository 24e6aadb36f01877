"""Wraps every call: its caller is asked who it is, its first message is read in time, errors become status codes, and
calls of our own services are counted and timed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import grpc
from prometheus_client import Counter

from engine import metrics
from engine.failures import told
from engine.limited_log import LimitedLog
from engine.security.guard import Guard
from engine.serving.errors import FAILURES, SnapshotFailed, StreamTooOld, is_expected, status_of
from engine.serving.first_message import FirstMessages
from engine.serving.foreign_calls import wrap_foreign
from engine.serving.lists import passes_bytes
from engine.serving.request_name import HEADER, name_request
from engine.serving.requests import lenient

_log = logging.getLogger(__name__)
_limited = LimitedLog(_log)

_PACKAGE = "/ousel.v1."
_AHEAD_S = 0.1  # that a client's deadline may pass before ours: what its request took to get here

Behavior = Callable[[Any, Any], Awaitable[Any]]


class _Counts(dict[grpc.StatusCode, Counter]):
    """The counter of one method's calls by their code, made when a code is first seen."""

    def __init__(self, method: str) -> None:
        self._method = method

    def __missing__(self, code: grpc.StatusCode) -> Counter:
        self[code] = found = metrics.CALLS.labels(self._method, code.name)
        return found


class CallObserver(grpc.aio.ServerInterceptor):
    """Wraps all services. Methods of ours are coroutines and simply raise; health and reflection are not counted.

    Args:
        first: reads the first message of every call but those of methods that read their own.
        guard: turns away who may not make a call, before anything of it is read.
        closing: set once streams are to end.

    Attributes:
        failed: calls, streams included, that ended with one of `FAILURES`.
        taken: calls that gRPC has handed over, health and reflection included.
    """

    def __init__(self, first: FirstMessages, guard: Guard, closing: asyncio.Event) -> None:
        self.failed = self.taken = 0
        self._first = first
        self._guard = guard
        self._closing = closing
        self._handlers: dict[str, grpc.RpcMethodHandler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        self.taken += 1
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        if method not in self._handlers:
            ours = method.startswith(_PACKAGE)
            foreign = partial(wrap_foreign, first=self._first, guard=self._guard, closing=self._closing)
            self._handlers[method] = (self._wrap if ours else foreign)(handler, method)
        return self._handlers[method]

    def _wrap(self, handler: Any, method: str) -> grpc.RpcMethodHandler:
        make: Any
        if not handler.request_streaming:
            inner, make = self._with_request(handler.unary_unary), grpc.stream_unary_rpc_method_handler
        elif handler.response_streaming:
            inner, make = handler.stream_stream, grpc.stream_stream_rpc_method_handler
        else:
            inner, make = handler.stream_unary, grpc.stream_unary_rpc_method_handler
        guarded = self._guard.guarded(method, inner, lasting=handler.request_streaming)
        behavior = self._observed(guarded, method.removeprefix(_PACKAGE), timed=not handler.request_streaming)
        wrapped: grpc.RpcMethodHandler = make(
            behavior,
            lenient(handler.request_deserializer, self._guard.longest(method)),
            passes_bytes(handler.response_serializer),
        )
        return wrapped

    def _with_request(self, inner: Behavior) -> Behavior:
        async def behavior(_: Any, context: Any) -> Any:
            return await inner(await self._first.request(context), context)

        return behavior

    def _observed(self, inner: Behavior, method: str, *, timed: bool) -> Behavior:
        # Resolved once: finding a metric by its labels costs as much as raising it.
        seconds = metrics.REQUEST_SECONDS.labels(method)
        counts = _Counts(method)

        async def behavior(request: Any, context: Any) -> Any:
            started = time.perf_counter()
            request_name = name_request(context)
            code = grpc.StatusCode.OK
            try:
                return await inner(request, context)
            except asyncio.CancelledError:
                # gRPC cancels the task for both: the client left, or its deadline passed.
                remaining_s = context.time_remaining()
                late = remaining_s is not None and remaining_s <= _AHEAD_S
                code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
                raise
            except grpc.aio.InternalError:
                # The client left during a write; gRPC would log it, and is about to cancel the task.
                code = grpc.StatusCode.CANCELLED
                raise asyncio.CancelledError from None
            except Exception as error:
                status = status_of(error)
                # A stream that has lasted for as long as one may has not failed, though its client must open another.
                code = grpc.StatusCode.OK if isinstance(error, StreamTooOld) else status.code
                if code is grpc.StatusCode.INTERNAL and not isinstance(error, SnapshotFailed):  # which has its line
                    _log.error("%s failed: %s", method, told(error), exc_info=None if is_expected(error) else error)
            finally:
                self.failed += code in FAILURES
                counts[code].inc()
                if timed:
                    seconds.observe(time.perf_counter() - started)
            # Counted by now: a client that knows of the failure finds it in GetStatus.
            try:
                trailing = (*status.trailing_metadata, (HEADER, str(request_name)))
                return await context.abort(status.code, status.details, trailing)
            except grpc.aio.InternalError:
                raise asyncio.CancelledError from None  # The client left, as above.

        return behavior


def log_clients_that_left() -> None:
    """Has an answer that finds no client logged in one line; gRPC logs a traceback, as if the engine had failed."""
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_of_the_engine)


def _is_of_the_engine(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, grpc.aio.InternalError):
        return True
    _limited.warning("client left", "a client left before its answer could be sent (%s)", record.getMessage())
    return False
