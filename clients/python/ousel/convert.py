"""Between arguments, protobuf messages and the client's own values; the only place that knows both sides."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TypeVar

from ousel import convert_models
from ousel.arguments import (
    INT32,
    flag,
    moment,
    number,
    optional_text,
    position,
    text,
    text_by_name,
    texts,
    whole,
    wrong,
)
from ousel.errors import InvalidArgument, OuselError, from_refusal
from ousel.status import Status
from ousel.types import (
    Cause,
    Exported,
    Forgotten,
    HeldSubject,
    Origin,
    PartitionDigest,
    Position,
    Query,
    Recommendation,
    RecommendationList,
    RememberedEvent,
    RememberedRelation,
    Source,
    StateDigest,
    Subject,
    Tracked,
    Update,
)
from ousel.v1 import (
    event_pb2,
    event_service_pb2,
    model_service_pb2,
    privacy_service_pb2,
    recommender_service_pb2,
    state_service_pb2,
)

R = TypeVar("R", privacy_service_pb2.ForgetUserRequest, privacy_service_pb2.ExportUserRequest)

_ORIGIN = {
    recommender_service_pb2.ORIGIN_MODEL: Origin.MODEL,
    recommender_service_pb2.ORIGIN_POPULARITY: Origin.POPULARITY,
    recommender_service_pb2.ORIGIN_COVISITATION: Origin.COVISITATION,
    recommender_service_pb2.ORIGIN_FREQUENCY: Origin.FREQUENCY,
}
_SOURCE = {
    recommender_service_pb2.SOURCE_INDEX: Source.INDEX,
    recommender_service_pb2.SOURCE_HISTORY: Source.HISTORY,
    recommender_service_pb2.SOURCE_NEIGHBOR: Source.NEIGHBOR,
    recommender_service_pb2.SOURCE_POPULAR: Source.POPULAR,
    recommender_service_pb2.SOURCE_FRIEND: Source.FRIEND,
    recommender_service_pb2.SOURCE_ENTITY: Source.ENTITY,
    recommender_service_pb2.SOURCE_BACKFILL: Source.BACKFILL,
}
_CAUSE = {
    recommender_service_pb2.CAUSE_SUBSCRIBED: Cause.SUBSCRIBED,
    recommender_service_pb2.CAUSE_EVENTS: Cause.EVENTS,
    recommender_service_pb2.CAUSE_MODEL: Cause.MODEL,
    recommender_service_pb2.CAUSE_CATALOG: Cause.CATALOG,
}


def subscriber(
    query: recommender_service_pb2.Query, user_id: str | None, session_id: str | None
) -> tuple[str | None, str | None]:
    """Whose event it is that is sent on the stream of `query`: the subscriber's, unless it names another session.

    Raises:
        InvalidArgument: the engine would refuse the event, and end the stream with that.
    """
    user_id, session_id = optional_text("user_id", user_id), optional_text("session_id", session_id)
    if not user_id and not session_id:
        return query.user_id, query.session_id
    if query.user_id:
        if user_id not in ("", query.user_id):
            raise InvalidArgument(f"user_id must be None or the subscribed {query.user_id!r}, got {user_id!r}")
    elif user_id:
        raise InvalidArgument(
            f"user_id must be None on the stream of the anonymous session {query.session_id!r}, got {user_id!r}:"
            " to sign in, call resubscribe with user_id and session_id, and track after that"
        )
    elif session_id != query.session_id:
        raise InvalidArgument(f"session_id must be None or the subscribed {query.session_id!r}, got {session_id!r}")
    return user_id, session_id


def batch_request(queries: Iterable[Query]) -> recommender_service_pb2.RecommendBatchRequest:
    """The request for a batch of lists.

    Raises:
        InvalidArgument: a value that the message can't carry; everything else is the engine's to judge.
    """
    if isinstance(queries, (str, bytes, bytearray)) or not isinstance(queries, Iterable):
        raise wrong("queries", "a sequence of ousel.Query", queries)
    return recommender_service_pb2.RecommendBatchRequest(
        queries=[_query(f"queries[{place}]", query) for place, query in enumerate(queries)]
    )


def _query(name: str, query: Query) -> recommender_service_pb2.Query:
    if not isinstance(query, Query):
        raise wrong(name, "an ousel.Query", query)
    try:
        return query_message(
            query.user_id, query.session_id, query.k, query.categories, query.exclude_item_ids, query.exclude_history
        )
    except InvalidArgument as error:
        raise InvalidArgument(f"{name}.{error}") from None


def query_message(
    user_id: str | None,
    session_id: str | None,
    k: int | None,
    categories: Iterable[str],
    exclude_item_ids: Iterable[str],
    exclude_history: bool,
) -> recommender_service_pb2.Query:
    """The query for one list or one subscription.

    Raises:
        InvalidArgument: a value that the message can't carry; everything else is the engine's to judge.
    """
    return recommender_service_pb2.Query(
        user_id=optional_text("user_id", user_id),
        session_id=optional_text("session_id", session_id),
        k=None if k is None else whole("k", k, INT32),
        options=recommender_service_pb2.QueryOptions(
            exclude_history=flag("exclude_history", exclude_history),
            categories=texts("categories", categories),
            exclude_item_ids=texts("exclude_item_ids", exclude_item_ids),
        ),
    )


def after_message(after: Position | None) -> event_pb2.LogPosition | None:
    """The record that a list must reflect.

    Raises:
        InvalidArgument: a value that the message can't carry; everything else is the engine's to judge.
    """
    checked = position("after", after)
    if checked is None:
        return None
    return event_pb2.LogPosition(topic=checked.topic, partition=checked.partition, offset=checked.offset)


def event_message(
    item_id: str,
    user_id: str | None,
    session_id: str | None,
    kind: str,
    value: float,
    time: datetime | None,
    event_id: str | None,
    attributes: Mapping[str, str] | None,
    *,
    target_user_id: str = "",
    entity_id: str = "",
    ends: bool = False,
) -> event_pb2.Event:
    """The event or relation, with an id of its own if it has none, so that sending it twice counts once.

    Raises:
        InvalidArgument: a value that the message can't carry; everything else is the engine's to judge.
    """
    return event_pb2.Event(
        event_id=optional_text("event_id", event_id) or uuid.uuid4().hex,
        user_id=optional_text("user_id", user_id),
        session_id=optional_text("session_id", session_id),
        item_id=text("item_id", item_id),
        kind=text("kind", kind),
        time=moment("time", time),
        value=number("value", value),
        attributes=text_by_name("attributes", attributes),
        target_user_id=text("target_user_id", target_user_id),
        entity_id=text("entity_id", entity_id),
        ends=flag("ends", ends),
    )


def subject_request(kind: type[R], user_id: str | None, session_id: str | None) -> R:
    """A request about a user or an anonymous session.

    Raises:
        InvalidArgument: a value that the message can't carry; everything else is the engine's to judge.
    """
    return kind(user_id=optional_text("user_id", user_id), session_id=optional_text("session_id", session_id))


def recommended(message: recommender_service_pb2.RecommendResponse) -> RecommendationList:
    return recommendation_list(message.list)


def batch(
    message: recommender_service_pb2.RecommendBatchResponse, address: str
) -> tuple[RecommendationList | OuselError, ...]:
    """The answers to a batch in their order."""
    return tuple(
        recommendation_list(answer.list) if answer.HasField("list") else from_refusal(answer.refusal, address)
        for answer in message.answers
    )


def snapshot_taken(message: state_service_pb2.TakeSnapshotResponse) -> tuple[Position, ...]:
    return positions(message.reflects)


def recommendation_list(message: recommender_service_pb2.RecommendationList) -> RecommendationList:
    return RecommendationList(
        items=tuple(
            Recommendation(
                item_id=item.item_id,
                title=item.title,
                score=item.score,
                sources=tuple(_SOURCE.get(source, Source.UNKNOWN) for source in item.sources),
            )
            for item in message.items
        ),
        origin=_ORIGIN.get(message.origin, Origin.UNKNOWN),
        known=message.known,
        model_version=message.model_version,
        reflects=positions(message.reflects),
    )


def update(message: recommender_service_pb2.StreamRecommendationsResponse) -> Update:
    return Update(list=recommendation_list(message.list), cause=_CAUSE.get(message.cause, Cause.UNKNOWN))


def tracked(message: event_service_pb2.TrackResponse) -> Tracked:
    return Tracked(event_id=message.event_id, position=_position(message.position))


def status(message: model_service_pb2.GetStatusResponse) -> Status:
    return Status(
        serving=message.serving,
        model_version=message.model_version,
        model_metrics=dict(sorted(message.model_metrics.items())),
        model_versions=tuple(message.model_versions),
        users=message.users,
        items=message.items,
        index_items=message.index_items,
        events_folded=message.events_folded,
        items_folded=message.items_folded,
        events_dead_lettered=message.events_dead_lettered,
        lag=message.lag,
        streams=message.streams,
        failed_calls=message.failed_calls,
        reflects=positions(message.reflects),
        uptime_s=message.uptime_s,
        partitions=tuple(message.partitions),
        partitions_total=message.partitions_total,
        users_limit=message.users_limit,
        users_evicted=message.users_evicted,
        items_evicted=message.items_evicted,
        users_forgotten=message.users_forgotten,
        events_duplicate=message.events_duplicate,
        records_redelivered=message.records_redelivered,
        snapshot_time=message.snapshot_time.ToDatetime(UTC) if message.HasField("snapshot_time") else None,
        targets=message.targets,
        targets_evicted=message.targets_evicted,
        building=convert_models.building(message),
        refused=convert_models.refused(message),
        model_origin=convert_models.origin(message.model_origin),
        registry_problem=message.registry_problem,
    )


def forgotten(message: privacy_service_pb2.ForgetUserResponse) -> Forgotten:
    return Forgotten(
        subjects=tuple(Subject(subject.user_id, subject.session_id) for subject in message.subjects),
        positions=positions(message.positions),
        partitions=tuple(message.partitions),
    )


def exported(message: privacy_service_pb2.ExportUserResponse) -> Exported:
    return Exported(
        known=message.known,
        subjects=tuple(map(_held, message.subjects)),
        partitions=tuple(message.partitions),
    )


def _held(message: privacy_service_pb2.HeldSubject) -> HeldSubject:
    return HeldSubject(
        partition=message.partition,
        session_id=message.session_id,
        history=tuple(
            RememberedEvent(event.item_id, event.kind, event.time.ToDatetime(UTC), event.value, event.session)
            for event in message.history
        ),
        sessions=message.sessions,
        named_by_item_ids=tuple(message.named_by_item_ids),
        relations=tuple(
            RememberedRelation(relation.user_id, relation.kind, relation.time.ToDatetime(UTC), relation.value)
            for relation in message.relations
        ),
        named_by_users=message.named_by_users,
    )


def state_digest(message: state_service_pb2.GetDigestResponse) -> StateDigest:
    return StateDigest(
        partitions=tuple(
            PartitionDigest(one.digest, _position(one.reflects), one.events_folded) for one in message.partitions
        ),
        catalog_digest=message.catalog_digest,
        catalog_reflects=positions(message.catalog_reflects),
    )


def _position(message: event_pb2.LogPosition) -> Position:
    return Position(topic=message.topic, partition=message.partition, offset=message.offset)


def positions(messages: Iterable[event_pb2.LogPosition]) -> tuple[Position, ...]:
    return tuple(map(_position, messages))
