import pytest
from ousel.v1 import event_pb2, recommender_service_pb2

from engine.config import Config, EventsConfig, RankingConfig
from engine.ranking.query import Query
from engine.serving.errors import InvalidRequest
from engine.serving.requests import Undecodable, for_subscriber, lenient, parse_query

CONFIG = Config(events=EventsConfig(max_id_bytes=32))


def parse(**fields: object) -> Query:
    options = {
        name: fields.pop(name) for name in ("exclude_history", "categories", "exclude_item_ids") if name in fields
    }
    query = recommender_service_pb2.Query(
        **{"user_id": "u1", "k": 10, **fields}, options=recommender_service_pb2.QueryOptions(**options)
    )
    return parse_query(query, CONFIG)


def test_takes_over_every_field():
    assert parse(
        session_id="s1", k=7, exclude_history=True, categories=["dairy", "bread"], exclude_item_ids=["x"]
    ) == Query("u1", "s1", 7, True, ("dairy", "bread"), ("x",))


@pytest.mark.parametrize(
    "fields",
    [
        {"k": 1},
        {"k": 1000},
        {"user_id": "", "session_id": "s"},
        {"user_id": "x" * 32},
        {"user_id": "ü" * 16},
        {"categories": ["c"] * 64},
        {"exclude_item_ids": ["i"] * 1000},
    ],
)
def test_accepts_what_is_just_inside_the_limits(fields):
    parse(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"k": 1001}, "k must be within 1..1000, or 0 for 10, got 1001"),
        ({"k": -1}, "k must be within 1..1000, or 0 for 10, got -1"),
        ({"user_id": ""}, "user_id or session_id must be set, got neither"),
        ({"user_id": "x" * 33}, f"user_id must have at most 32 bytes in UTF-8, got 33: {'x' * 33!r}"),
        ({"session_id": "ü" * 17}, f"session_id must have at most 32 bytes in UTF-8, got 34: {'ü' * 17!r}"),
        ({"user_id": "a\nb"}, "user_id must not have control characters, got 'a\\nb'"),
        ({"session_id": "\x7f"}, "session_id must not have control characters, got '\\x7f'"),
        ({"categories": ["ok", "a\0"]}, "categories[1] must not have control characters, got 'a\\x00'"),
        ({"categories": [""]}, "categories[0] must not be empty, got ''"),
        ({"categories": ["c"] * 65}, "categories must be at most 64, got 65"),
        ({"exclude_item_ids": ["i"] * 1001}, "exclude_item_ids must be at most 1000, got 1001"),
        ({"exclude_item_ids": ["i", "", "i"]}, "exclude_item_ids[1] must not be empty, got ''"),
    ],
)
def test_names_field_value_and_range(fields, message):
    with pytest.raises(InvalidRequest) as caught:
        parse(**fields)
    assert str(caught.value) == message


@pytest.mark.parametrize(("max_k", "length"), [(1000, 10), (10, 10), (3, 3)])
def test_a_query_without_a_length_asks_for_ten_items_or_for_as_many_as_there_may_be(max_k, length):
    config = Config(ranking=RankingConfig(max_k=max_k))
    assert parse_query(recommender_service_pb2.Query(user_id="u1"), config).k == length
    assert parse_query(recommender_service_pb2.Query(user_id="u1", k=0), config).k == length
    assert parse_query(recommender_service_pb2.Query(user_id="u1", k=1), config).k == 1


def test_shows_only_the_beginning_of_a_long_value():
    with pytest.raises(InvalidRequest) as caught:
        parse(exclude_item_ids=["y" * 100_000])
    assert str(caught.value) == (
        f"exclude_item_ids[0] must have at most 32 bytes in UTF-8, got 100000: {'y' * 40!r}..."
    )


USER = Query("u1", "s1", 5)
ANONYMOUS = Query("", "s1", 5)


@pytest.mark.parametrize(
    ("query", "event", "expected"),
    [
        (USER, ("", ""), ("u1", "s1")),
        (USER, ("u1", ""), ("u1", "s1")),
        (USER, ("u1", "s2"), ("u1", "s2")),
        (USER, ("", "s2"), ("u1", "s2")),
        (ANONYMOUS, ("", ""), ("", "s1")),
        (ANONYMOUS, ("", "s1"), ("", "s1")),
    ],
)
def test_an_event_takes_what_it_does_not_name_from_the_subscription(query, event, expected):
    filled = for_subscriber(event_pb2.Event(user_id=event[0], session_id=event[1], item_id="i"), query)
    assert (filled.user_id, filled.session_id, filled.item_id) == (*expected, "i")


@pytest.mark.parametrize(
    ("query", "event", "message"),
    [
        (USER, ("u2", "s1"), "event.user_id must be empty or the subscribed 'u1', got 'u2'"),
        (ANONYMOUS, ("", "s2"), "event.session_id must be empty or the subscribed 's1', got 's2'"),
        *(
            (
                ANONYMOUS,
                ("u1", session),
                "event.user_id must be empty on the stream of the anonymous session 's1', got 'u1': to sign in,"
                " subscribe again on this stream with user_id and session_id, and send the event after that",
            )
            for session in ("", "s1", "s2")
        ),
    ],
)
def test_refuses_an_event_of_someone_else(query, event, message):
    with pytest.raises(InvalidRequest) as caught:
        for_subscriber(event_pb2.Event(user_id=event[0], session_id=event[1]), query)
    assert str(caught.value) == message


@pytest.mark.parametrize("query", [USER, ANONYMOUS])
def test_the_relation_of_an_item_is_nobodys_and_takes_another_way_than_a_stream(query):
    with pytest.raises(InvalidRequest, match=r"event.entity_id must be empty .* got 'Ford': send it by EventService"):
        for_subscriber(event_pb2.Event(item_id="i", entity_id="Ford"), query)


def test_the_relation_of_a_user_is_the_subscribers():
    assert for_subscriber(event_pb2.Event(target_user_id="u2"), USER).user_id == "u1"
    with pytest.raises(InvalidRequest, match=r"event\.user_id must be empty"):
        for_subscriber(event_pb2.Event(user_id="u1", target_user_id="u2"), ANONYMOUS)


def test_a_lenient_deserializer_stands_in_for_what_it_cannot_read():
    decode = lenient(event_pb2.Event.FromString)
    assert decode(event_pb2.Event(item_id="i").SerializeToString()) == event_pb2.Event(item_id="i")
    undecodable = decode(b"\x0a\x01\xff")
    assert isinstance(undecodable, Undecodable)
    assert "UTF-8" in undecodable.reason
