"""One open stream of the blocking client."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import grpc

from ousel import convert
from ousel.errors import DeadlineExceeded, OuselError, StreamEnded, client_closed, from_call, plain_reading
from ousel.resume import Message, Progress
from ousel.types import Update
from ousel.v1 import event_pb2, recommender_service_pb2

_MAX_UNSENT = 256  # messages waiting for a stream's connection


class Subscription:
    """The lists of one stream, latest wins: who reads slowly skips lists. Made by `Client.stream`.

    One thread iterates; any thread may track, resubscribe or close. Iteration ends when the stream is closed here or
    by the engine. Where the engine goes away, iterating resumes the stream at the same one or another.
    """

    def __init__(
        self,
        method: Callable[..., Any],
        query: recommender_service_pb2.Query,
        address: str,
        timeout_s: float,
        resume_s: float,
    ) -> None:
        self._method = method
        self._address = address
        self._timeout_s = timeout_s
        self._query = query
        # An event is the subscriber's as of the message before it, so both are settled together.
        self._sending = threading.Lock()
        self._opening = threading.Lock()  # that no call is opened behind a close
        self._closed = False
        self._over = threading.Event()  # closed, or the client is
        self._progress = Progress(resume_s)
        self._outbox = _Outbox(self._progress)
        self._outbox.put(Message(subscribe=query), timeout_s)
        self._call: Any = None
        self._open()

    def _open(self) -> None:
        messages = self._outbox.messages()
        self._call = self._method(messages)
        # However the call ends, this lets go of the thread that gRPC has waiting for the next message.
        if not self._call.add_callback(messages.end):
            messages.end()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Update:
        """Waits for the next list.

        Raises:
            OuselError: the stream broke; `Unavailable` where a new one is worth a try.
        """
        while True:
            try:
                message = next(self._call)
            except StopIteration:
                self._outbox.close()  # now: gRPC runs our callback in its own time
                raise
            except grpc.RpcError as error:
                if self._closed:
                    self._outbox.close()
                    raise StopIteration from None
                self._resume(from_call(error, self._address, None))
                continue
            with plain_reading(self._address):
                update = convert.update(message)
            if self._progress.is_news(update.list):
                return update

    def _resume(self, failure: OuselError) -> None:
        """Waits, and opens the next call; raises `failure` where the stream does not go on."""
        if not self._progress.may_resume(failure):
            self._outbox.close()
            raise failure from None
        self._over.wait(self._progress.wait_s(failure))
        with self._opening:
            if self._closed:
                raise StopIteration
            if self._over.is_set():
                raise client_closed()
            self._open()

    def track(
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

        What is on its way when the stream ends is lost; `Client.track` confirms. Where the stream is resumed, it is
        sent again, and counts once. The event is the subscriber's. A
        subscribed user may name another of its sessions. An anonymous session signs in by `resubscribe` with user and
        session: the next event tracked here carries both, and links the two. Other arguments: see `Client.track`.

        Raises:
            InvalidArgument: the event would be somebody else's than the subscriber's.
            StreamEnded: the stream is over.
            DeadlineExceeded: the engine has not taken earlier messages for the client's `timeout_s`.
        """
        with self._sending:
            user_id, session_id = convert.subscriber(self._query, user_id, session_id)
            event = convert.event_message(item_id, user_id, session_id, kind, value, time, event_id, attributes)
            self._send(event=event)
        return event.event_id

    def resubscribe(
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
        with self._sending:
            self._send(subscribe=query)
            self._query = query

    def close(self) -> None:
        """Ends the stream. Safe to call twice, from any thread."""
        with self._opening:
            self._closed = True
            self._over.set()
            self._outbox.close()
            self._call.cancel()

    def _client_closed(self) -> None:
        """The client is closed: what would be sent from now on could not go out. A reader hears it from the call."""
        with self._opening:
            self._over.set()
            self._outbox.close()

    def _send(
        self, *, subscribe: recommender_service_pb2.Query | None = None, event: event_pb2.Event | None = None
    ) -> None:
        message = Message(subscribe=subscribe, event=event)
        if not self._outbox.put(message, self._timeout_s):
            raise DeadlineExceeded(
                f"the engine at {self._address} took no message of this stream for {self._timeout_s:g} s"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Outbox:
    """Messages on their way into a stream, bounded, whichever call takes them."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._messages: deque[Message] = deque()
        self._taker: _Messages | None = None
        self._closed = False
        self._changed = threading.Condition()

    def put(self, message: Message, timeout_s: float) -> bool:
        """Queues a message; False if there was no room for it within `timeout_s`."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed or len(self._messages) < _MAX_UNSENT, timeout_s):
                return False
            if self._closed:
                raise StreamEnded("the stream is over; open a new one")
            self._messages.append(message)
            self._changed.notify_all()
            return True

    def messages(self) -> _Messages:
        """For the next call: what the one before has taken lately, and then what waits."""
        with self._changed:
            self._messages.extendleft(reversed(self._progress.opening()))
            self._taker = _Messages(self)
            self._changed.notify_all()
            return self._taker

    def take(self, taker: _Messages) -> Message | None:
        """Waits for the next message; None where the call of `taker` is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or taker is not self._taker or self._messages)
            if self._closed or taker is not self._taker:
                return None
            self._changed.notify_all()
            message = self._messages.popleft()
            self._progress.passed(message)
            return message

    def end(self, taker: _Messages) -> None:
        """The call of `taker` is over."""
        with self._changed:
            if taker is self._taker:
                self._taker = None
                self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class _Messages:
    """Iterates over the messages of one call, in the thread that gRPC sends with."""

    def __init__(self, outbox: _Outbox) -> None:
        self._outbox = outbox

    def end(self) -> None:
        self._outbox.end(self)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Message:
        message = self._outbox.take(self)
        if message is None:
            raise StopIteration
        return message
