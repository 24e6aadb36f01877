"""Events on their way into the log: checked, completed, written, acknowledged."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Protocol

from ousel.v1 import event_pb2, privacy_service_pb2

from engine.config import Config
from engine.events.codec import validate_event
from engine.events.placeholders import named_event_id
from engine.events.producer import ProducerFullError, RecordTooLargeError
from engine.pipeline import Overloaded
from engine.serving.errors import InvalidRequest, LogUnavailable

# An answer must reach the caller before its own deadline does, or it never learns the reason. Callers that are in more
# of a hurry than this get the whole time.
_ANSWER_SHARE = 0.1
_HURRY_S = 1.0
_RETRY_S = 1.0  # A caller with less time than this left can't wait for the hint, and would not see the reason either.


class EventLog(Protocol):
    """The events topic, to be written."""

    def send_event(self, event: event_pb2.Event) -> Future[event_pb2.LogPosition]:
        """Hands the event over without waiting.

        The future can't be cancelled; it is done once the log has the event, or fails. May raise, too.
        """

    def send_forget(self, event: event_pb2.Event) -> list[Future[event_pb2.LogPosition]]:
        """Hands an event that forgets over to every partition; otherwise as `send_event`."""


class EventWriter:
    """Writes callers' events.

    Args:
        log: None where events can't be written; then every write says so.
    """

    def __init__(self, log: EventLog | None, config: Config) -> None:
        self._log = log
        self._config = config

    async def write(self, event: event_pb2.Event, remaining_s: float | None = None) -> event_pb2.LogPosition:
        """Gives `event` an event_id and a time where it has none, and returns once the log has it.

        Args:
            remaining_s: the caller's deadline. kafka.request_timeout_ms bounds the wait too.

        Raises:
            InvalidRequest: the event breaks a rule.
            Overloaded: too many events wait for the log already; this one is not in it.
            LogUnavailable: the log did not take it. It may still do so: repeat with the same event_id.
            TimeoutError: the deadline passed first. The event may or may not be in the log.
        """
        self._complete(event, may_forget=False)
        (position,) = await self._written(lambda log: [log.send_event(event)], "the event", remaining_s)
        return position

    async def forget(
        self, subjects: Iterable[privacy_service_pb2.Subject], remaining_s: float | None = None
    ) -> list[event_pb2.LogPosition]:
        """Writes to every partition that the subjects are forgotten, and returns once the log has it all.

        Args:
            remaining_s: see `write`.

        Raises:
            InvalidRequest: a subject breaks a rule.
            Overloaded: too many events wait for the log already; the log may take some of the records all the same.
            LogUnavailable: the log did not take all of it. It may have taken some, and repeating it does no harm.
            TimeoutError: the deadline passed first; likewise.
        """
        events = [
            event_pb2.Event(user_id=subject.user_id, session_id=subject.session_id, forget=True) for subject in subjects
        ]
        for event in events:
            self._complete(event, may_forget=True)
        return await self._written(
            lambda log: [sent for event in events for sent in log.send_forget(event)],
            "the records that forget",
            remaining_s,
        )

    def _complete(self, event: event_pb2.Event, *, may_forget: bool) -> None:
        now_ms = time.time_ns() // 1_000_000
        event.event_id = named_event_id(event.event_id, self._config.events) or uuid.uuid4().hex
        if not event.HasField("time"):
            event.time.FromMilliseconds(now_ms)
        if problem := validate_event(event, now_ms, self._config.events, may_forget=may_forget):
            raise InvalidRequest(f"event.{problem}", f"event.{problem.field}")

    async def _written(
        self,
        send: Callable[[EventLog], list[Future[event_pb2.LogPosition]]],
        what: str,
        remaining_s: float | None,
    ) -> list[event_pb2.LogPosition]:
        if self._log is None:
            raise LogUnavailable("this engine has no log to write events to")
        kafka = self._config.kafka
        began_s = time.monotonic()
        limit_s = patience_s = kafka.request_timeout_ms / 1000
        if remaining_s is not None:
            patience_s = min(limit_s, remaining_s if remaining_s < _HURRY_S else remaining_s * (1 - _ANSWER_SHARE))

        def unavailable(reason: str) -> LogUnavailable:
            spent_s = time.monotonic() - began_s
            return LogUnavailable(reason, last=remaining_s is not None and remaining_s - spent_s < _RETRY_S)

        try:
            async with asyncio.timeout(patience_s):
                return await asyncio.gather(*map(asyncio.wrap_future, send(self._log)))
        except TimeoutError:
            if remaining_s is not None and patience_s == remaining_s:
                raise TimeoutError(f"the deadline passed before the log acknowledged {what}") from None
            raise unavailable(
                f"Kafka at {kafka.bootstrap} did not acknowledge {what} within {patience_s:g} s: check that it runs."
                " It may still be written, so repeat it with the same event_id"
            ) from None
        except ProducerFullError as error:
            raise Overloaded(f"{what} could not be written to the log: {error}") from None
        except RecordTooLargeError as error:
            raise InvalidRequest(f"{what} must be smaller: it makes a record {error}", "event") from None
        except Exception as error:
            raise unavailable(f"{what} could not be written to Kafka at {kafka.bootstrap}: {error}") from error
