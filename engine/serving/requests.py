"""Requests, checked: what leaves this module may be trusted by the rooms behind."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from ousel.v1 import event_pb2, model_service_pb2, privacy_service_pb2, recommender_service_pb2

from engine.config import Config
from engine.events.rules import MAX_CATEGORIES, id_problem, shown
from engine.ranking.query import DEFAULT_K, Position, Query
from engine.security.caller import current_caller
from engine.serving.errors import InvalidRequest

MAX_EXCLUDED = 1000
MAX_QUERIES = 100
SHA256_BYTES = 32
MAX_METRICS, MAX_METRIC_BYTES = 64, 128
MAX_TRAINED_ON, MAX_PUSHED_BY_BYTES = 1024, 128
MAX_VERSION_STEP = 100_000_000
MAX_VERSION_AHEAD_S = 86_400
EARLIEST_VERSION_S = 1_000_000_000  # in 2001; a smaller number is no time


def parse_query(query: recommender_service_pb2.Query, config: Config, path: str = "query") -> Query:
    """Checks whom a list is for and what it may hold.

    Args:
        path: the field of the request that holds the query.

    Raises:
        InvalidRequest: names field, value and what is allowed.
    """
    max_bytes = config.events.max_id_bytes
    most = config.ranking.max_k
    if not 0 <= query.k <= most:
        raise InvalidRequest(f"k must be within 1..{most}, or 0 for {min(DEFAULT_K, most)}, got {query.k}", f"{path}.k")
    if not query.user_id and not query.session_id:
        raise InvalidRequest("user_id or session_id must be set, got neither", f"{path}.user_id")
    _check_id("user_id", query.user_id, max_bytes, path)
    _check_id("session_id", query.session_id, max_bytes, path)
    options = query.options
    return Query(
        user_id=query.user_id,
        session_id=query.session_id,
        k=query.k or min(DEFAULT_K, most),
        exclude_history=options.exclude_history,
        categories=_ids("categories", options.categories, MAX_CATEGORIES, max_bytes, f"{path}.options"),
        exclude_item_ids=_ids("exclude_item_ids", options.exclude_item_ids, MAX_EXCLUDED, max_bytes, f"{path}.options"),
    )


def parse_queries(
    request: recommender_service_pb2.RecommendBatchRequest, config: Config
) -> list[Query | InvalidRequest]:
    """Each query of a batch, or why it is refused.

    Raises:
        InvalidRequest: there are none, or too many.
    """
    if not 1 <= len(request.queries) <= MAX_QUERIES:
        raise InvalidRequest(f"queries must be 1 to {MAX_QUERIES}, got {len(request.queries)}", "queries")
    parsed: list[Query | InvalidRequest] = []
    for place, query in enumerate(request.queries):
        try:
            parsed.append(parse_query(query, config, f"queries[{place}]"))
        except InvalidRequest as refusal:
            parsed.append(refusal)
    return parsed


def parse_after(request: recommender_service_pb2.RecommendRequest, config: Config) -> Position | None:
    """Checks which record a list must reflect; None: it may be made at once.

    Raises:
        InvalidRequest: names field, value and what is allowed.
    """
    if not request.HasField("after"):
        return None
    after, topic = request.after, config.kafka.events_topic
    if after.topic != topic:
        raise InvalidRequest(f"after.topic must be {topic!r}, got {shown(after.topic)}", "after.topic")
    if after.partition < 0:
        raise InvalidRequest(f"after.partition must be >= 0, got {after.partition}", "after.partition")
    if after.offset < 0:
        raise InvalidRequest(f"after.offset must be >= 0, got {after.offset}", "after.offset")
    return Position(topic, after.partition, after.offset)


def for_subscriber(event: event_pb2.Event, query: Query) -> event_pb2.Event:
    """Fills in the subscriber's user and session where the event names none; changes and returns `event`.

    Whoever opened the stream speaks for its subject and for nobody else. A user may move on to another session on the
    same stream. A session without a user is all that is known of someone: an event that names a user would sign that
    session in, as any user that it likes, so the client has to say first, by another subscribe, whom the stream is for.

    Raises:
        InvalidRequest: the event is someone else's, or nobody's.
    """
    if event.entity_id:
        raise InvalidRequest(
            "event.entity_id must be empty on a stream, because the relation of an item belongs to no subscriber, got"
            f" {shown(event.entity_id)}: send it by EventService.Track",
            "event.entity_id",
        )
    if not query.user_id and event.user_id:
        raise InvalidRequest(
            f"event.user_id must be empty on the stream of the anonymous session {shown(query.session_id)}, got"
            f" {shown(event.user_id)}: to sign in, subscribe again on this stream with user_id and session_id, and send"
            " the event after that",
            "event.user_id",
        )
    name, subscribed = ("user_id", query.user_id) if query.user_id else ("session_id", query.session_id)
    if getattr(event, name) not in ("", subscribed):
        got = shown(getattr(event, name))
        raise InvalidRequest(
            f"event.{name} must be empty or the subscribed {shown(subscribed)}, got {got}", f"event.{name}"
        )
    event.user_id = event.user_id or query.user_id
    event.session_id = event.session_id or query.session_id
    return event


def parse_subject(
    request: privacy_service_pb2.ForgetUserRequest | privacy_service_pb2.ExportUserRequest, config: Config
) -> privacy_service_pb2.Subject:
    """Checks whom a call is about.

    Raises:
        InvalidRequest: names field, value and what is allowed.
    """
    user_id, session_id = request.user_id, request.session_id
    _check_id("user_id", user_id, config.events.max_id_bytes)
    _check_id("session_id", session_id, config.events.max_id_bytes)
    if not user_id and not session_id:
        raise InvalidRequest("user_id or session_id must be set, got neither", "user_id")
    if user_id and session_id:
        # A session that belongs to a user is part of the user; only an anonymous one is somebody by itself.
        raise InvalidRequest(
            f"only one of user_id and session_id may be set, got {shown(user_id)} and {shown(session_id)}",
            "session_id",
        )
    return privacy_service_pb2.Subject(user_id=user_id, session_id=session_id)


def check_header(header: model_service_pb2.WeightsHeader, config: Config, newest: int) -> None:
    """Checks what a push announces.

    Args:
        newest: the greatest version of the registry.

    Raises:
        InvalidRequest: names field, value and what is allowed.
    """
    _check_version(header.version, newest, time.time())
    if not 1 <= header.size_bytes <= config.model.max_weights_bytes:
        raise InvalidRequest(
            f"size_bytes must be within 1..{config.model.max_weights_bytes}, got {header.size_bytes}",
            "header.size_bytes",
        )
    if len(header.sha256) != SHA256_BYTES:
        raise InvalidRequest(f"sha256 must have {SHA256_BYTES} bytes, got {len(header.sha256)}", "header.sha256")
    if len(header.metrics) > MAX_METRICS:
        raise InvalidRequest(f"metrics must be at most {MAX_METRICS}, got {len(header.metrics)}", "header.metrics")
    for name, value in header.metrics.items():
        if not name:
            raise InvalidRequest("metrics must have names, got ''", "header.metrics")
        if problem := id_problem("the name of a metric", name, MAX_METRIC_BYTES):
            raise InvalidRequest(problem, "header.metrics")
        if not math.isfinite(value):
            raise InvalidRequest(f"metrics[{shown(name)}] must be finite, got {value}", "header.metrics")
    if problem := id_problem("pushed_by", header.pushed_by, MAX_PUSHED_BY_BYTES):
        raise InvalidRequest(problem, "header.pushed_by")
    if len(header.trained_on) > MAX_TRAINED_ON:
        raise InvalidRequest(
            f"trained_on must be at most {MAX_TRAINED_ON}, got {len(header.trained_on)}", "header.trained_on"
        )
    for number, at in enumerate(header.trained_on):
        place = f"trained_on[{number}]"
        if problem := id_problem(f"{place}.topic", at.topic, config.events.max_id_bytes):
            raise InvalidRequest(problem, f"header.{place}.topic")
        if at.partition < 0:
            raise InvalidRequest(f"{place}.partition must be >= 0, got {at.partition}", f"header.{place}.partition")


def _check_version(version: int, newest: int, now_s: float) -> None:
    """A version that is too great would block all later pushes, which must be above it.

    `ousel-trainer` counts: one above the newest. Others number their models by the time, in seconds or milliseconds.
    """
    if version < 1:
        raise InvalidRequest(f"version must be >= 1, got {version}", "header.version")
    latest_s = int(now_s) + MAX_VERSION_AHEAD_S
    count = newest + MAX_VERSION_STEP
    if version <= count or EARLIEST_VERSION_S <= version <= latest_s:
        return
    if not 1000 * EARLIEST_VERSION_S <= version <= 1000 * latest_s:
        raise InvalidRequest(
            f"version must be at most {count}, {MAX_VERSION_STEP} above the newest of the registry, or a time in"
            f" seconds or milliseconds since 1970 of at most a day from now, got {version}",
            "header.version",
        )


@dataclass(frozen=True)
class Undecodable:
    """Stands for a request that is not a valid message."""

    reason: str


@dataclass(frozen=True)
class Long:
    """Stands for a message that is longer than clients may send, until it is known who has sent it."""

    data: bytes
    decode: Callable[[bytes], Any]


def lenient(deserialize: Callable[[bytes], Any], most_bytes: int = sys.maxsize) -> Callable[[bytes], Any]:
    """Makes a deserializer return `Undecodable` instead of raising, and `Long` where there are more bytes than most.

    gRPC would end the call with UNKNOWN and a traceback in our log, though it is the caller who erred.
    """

    def decode(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError as error:
            return Undecodable(f"the request must be a valid message, with text in UTF-8, got: {error}")

    return lambda data: decode(data) if len(data) <= most_bytes else Long(data, decode)


async def read_request(context: Any) -> Any:
    """The next message of a streaming request, or None after the last.

    Raises:
        InvalidRequest: it is not a valid message.
        TooLarge: it is longer than the caller may send.
    """
    message = await context.read()
    if message is grpc.aio.EOF:  # type: ignore[attr-defined]
        return None
    if isinstance(message, Long):
        current_caller().check_message(len(message.data))
        message = message.decode(message.data)
    if isinstance(message, Undecodable):
        raise InvalidRequest(message.reason)
    return message


def _ids(name: str, values: Sequence[str], most: int, max_bytes: int, path: str) -> tuple[str, ...]:
    if len(values) > most:
        raise InvalidRequest(f"{name} must be at most {most}, got {len(values)}", f"{path}.{name}")
    for position, value in enumerate(values):
        if not value:
            raise InvalidRequest(f"{name}[{position}] must not be empty, got ''", f"{path}.{name}[{position}]")
        _check_id(f"{name}[{position}]", value, max_bytes, path)
    return tuple(values)


def _check_id(name: str, value: str, max_bytes: int, path: str = "") -> None:
    if problem := id_problem(name, value, max_bytes):
        raise InvalidRequest(problem, f"{path}.{name}" if path else name)
