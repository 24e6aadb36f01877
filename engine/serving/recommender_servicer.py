"""RecommenderService: lists on request, and lists whenever they change."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from ousel.v1 import recommender_service_pb2, recommender_service_pb2_grpc

from engine import metrics
from engine.config import Config, ServingConfig
from engine.ranking.query import Position, Query, Ranking
from engine.security.caller import current_caller
from engine.security.roles import EVENT_ON_A_STREAM
from engine.serving.engine import Engine
from engine.serving.errors import InvalidRequest, StreamOver, StreamTooOld, refusal_of
from engine.serving.event_writer import EventWriter
from engine.serving.first_message import FirstMessages
from engine.serving.inbox import Inbox
from engine.serving.lists import batch_bytes, response_bytes, update_bytes
from engine.serving.requests import for_subscriber, parse_after, parse_queries, parse_query, read_request
from engine.serving.subscriptions import Subscription, Subscriptions
from engine.tracing import spans
from engine.waiting import NoSuchRecord, Overloaded

# Shares of serving.max_connection_age_grace_s after which a stream ends. So it ends before its connection does, even if
# it was opened as the last one on it; and streams that were opened together do not all come back together.
_LEAST_AGE, _MOST_AGE = 0.75, 0.95


class RecommenderServicer(recommender_service_pb2_grpc.RecommenderServiceServicer):
    """Asks the engine for single lists; streams live in `subscriptions`."""

    def __init__(
        self, config: Config, engine: Engine, subscriptions: Subscriptions, writer: EventWriter, first: FirstMessages
    ) -> None:
        self._config = config
        self._first = first
        self._engine = engine
        self._subscriptions = subscriptions
        self._writer = writer
        self._inbox: Inbox | None = None  # of the loop that calls come in

    async def Recommend(self, request: recommender_service_pb2.RecommendRequest, context: Any) -> bytes:
        """One ranked list; with `after`, once it reflects that record."""
        query = parse_query(request.query, self._config)
        after = parse_after(request, self._config)
        inbox = self._inbox_of_the_loop()
        if after is not None:
            return response_bytes(await self._once_folded(query, after, context))
        with metrics.QUERIES_WAITING.track_inprogress():
            # gRPC ends the call at its deadline, and a timer of our own costs as much as reading the request.
            return response_bytes(await inbox.wait(self._engine.ask(query)))

    async def RecommendBatch(self, request: recommender_service_pb2.RecommendBatchRequest, _: Any) -> bytes:
        """A list for each query that may have one, all made together; the others are refused by themselves."""
        parsed = parse_queries(request, self._config)
        await current_caller().take_turn(len(parsed) - 1)
        inbox = self._inbox_of_the_loop()
        queries = [one for one in parsed if isinstance(one, Query)]
        metrics.QUERIES_WAITING.inc(len(queries))
        try:
            waits = map(inbox.wait, self._engine.ask_all(queries) if queries else ())
            made = iter(await asyncio.gather(*waits, return_exceptions=True))
        finally:
            metrics.QUERIES_WAITING.dec(len(queries))
        answers: list[Ranking | recommender_service_pb2.Refusal] = []
        for one in parsed:
            answer = next(made) if isinstance(one, Query) else one
            if isinstance(answer, BaseException) and not isinstance(answer, Exception):
                raise answer
            answers.append(refusal_of(answer) if isinstance(answer, Exception) else answer)
        return batch_bytes(answers)

    def _inbox_of_the_loop(self) -> Inbox:
        if self._inbox is None:
            self._inbox = Inbox(asyncio.get_running_loop())
        return self._inbox

    async def _once_folded(self, query: Query, after: Position, context: Any) -> Ranking:
        inbox = self._inbox_of_the_loop()
        remaining_s, most_s = context.time_remaining(), self._config.serving.max_record_wait_ms / 1000
        limit_s = most_s if remaining_s is None else min(most_s, remaining_s)
        how = "failed"
        try:
            async with asyncio.timeout(limit_s):
                ranking = await inbox.wait(self._engine.ask(query, after))
            how = "answered"
            return ranking
        except TimeoutError:
            how = "late"
            where = f"{after.topic}[{after.partition}] at offset {after.offset}"
            raise TimeoutError(f"the engine has not folded {where} within {limit_s:g} s") from None
        except asyncio.CancelledError:
            how = "left"
            raise
        except NoSuchRecord:
            how = "no_record"
            raise
        except Overloaded:
            how = "refused"
            raise
        finally:
            metrics.CALLS_WAITED.labels(how).inc()

    async def StreamRecommendations(self, _: Any, context: Any) -> None:
        """A list at once and whenever it changes, until the client cancels; it may stop writing earlier."""
        first = await self._first.read(context)
        if first is None or first.WhichOneof("message") != "subscribe":
            got = "nothing" if first is None else first.WhichOneof("message") or "neither subscribe nor event"
            raise InvalidRequest(f"the first message must be subscribe, got {got}", "subscribe")
        query = parse_query(first.subscribe, self._config, "subscribe")
        loop = asyncio.get_running_loop()
        subscription = self._subscriptions.open(query, loop)
        # The task must not be cancelled where its token counts no more: gRPC can't send a status over half a write.
        current_caller().ends_by(subscription.close)
        age_s = _age_s(self._config.serving)
        aging = None if age_s is None else loop.call_later(age_s, _end_aged, subscription)
        reader = asyncio.create_task(self._read(subscription, context))
        try:
            await _write(subscription, context)
        finally:
            if aging is not None:
                aging.cancel()
            subscription.close(StreamOver())
            reader.cancel()
            await asyncio.wait([reader])

    async def _read(self, subscription: Subscription, context: Any) -> None:
        """Takes further messages. An error ends the stream by way of its writer.

        The writer must not be cancelled for it: gRPC can't send a status over a write that was left half done.
        """
        try:
            while (message := await read_request(context)) is not None:
                await current_caller().take_turn()
                await self._take(message, subscription)
        except Exception as error:
            subscription.close(error)

    async def _take(
        self, message: recommender_service_pb2.StreamRecommendationsRequest, subscription: Subscription
    ) -> None:
        match message.WhichOneof("message"):
            case "subscribe":
                subscription.replace(parse_query(message.subscribe, self._config, "subscribe"))
            case "event":
                current_caller().need(EVENT_ON_A_STREAM, "an event on a stream")
                # One at a time: a client that sends faster than the log takes waits in its own flow control.
                await self._writer.write(for_subscriber(message.event, subscription.query))
            case _:
                raise InvalidRequest("a message must be subscribe or event, got neither")


async def _write(subscription: Subscription, context: Any) -> None:
    while True:
        ranking, cause = await subscription.next()
        with spans.push(subscription.folds, len(ranking.items)):
            await context.write(update_bytes(ranking, cause))


def _age_s(serving: ServingConfig) -> float | None:
    """How long a stream that is opened now may last, drawn by chance; None: as long as its client likes."""
    if serving.max_connection_age_s == 0:
        return None
    return serving.max_connection_age_grace_s * random.uniform(_LEAST_AGE, _MOST_AGE)


def _end_aged(subscription: Subscription) -> None:
    metrics.STREAMS_AGED.inc()
    subscription.close(StreamTooOld("the stream has been open for long enough, open it again"))
