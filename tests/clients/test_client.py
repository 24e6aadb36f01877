from datetime import UTC, datetime, timedelta, timezone

import grpc
import pytest
from ousel import (
    Client,
    InvalidArgument,
    ModelBuild,
    ModelOrigin,
    Origin,
    OuselError,
    Position,
    RefusedModel,
    RolledBack,
    Source,
    Unavailable,
)
from ousel.v1 import model_service_pb2


def test_recommend_sends_every_option(engine, client):
    client.recommend("ann", "tab-1", 7, categories=["fruit", "bread"], exclude_item_ids=("kiwi",), exclude_history=True)
    (request,) = engine.requests
    assert (request.query.user_id, request.query.session_id, request.query.k) == ("ann", "tab-1", 7)
    assert list(request.query.options.categories) == ["fruit", "bread"]
    assert list(request.query.options.exclude_item_ids) == ["kiwi"]
    assert request.query.options.exclude_history is True
    assert not request.HasField("after")


def test_recommend_may_wait_for_what_was_tracked(engine, client):
    client.recommend("ann", after=client.track("apple", "ann").position)
    tracked, asked = engine.requests
    assert tracked.event.item_id == "apple"
    assert (asked.after.topic, asked.after.partition, asked.after.offset) == ("ousel.events", 2, 7)
    with pytest.raises(InvalidArgument, match=r"after\.partition must be a whole number"):
        client.recommend("ann", after=Position("ousel.events", 2**40, 0))


def test_recommend_returns_plain_values(engine, client):
    ranked = client.recommend("ann")
    assert [(item.item_id, item.title, item.score) for item in ranked.items] == [
        ("apple", "The apple", 1.0),
        ("bread", "The bread", 0.5),
    ]
    assert ranked.items[0].sources == (Source.INDEX, Source.POPULAR)
    assert (ranked.origin, ranked.known, ranked.model_version) == (Origin.MODEL, True, 3)
    assert ranked.reflects == (Position("ousel.events", 1, 41),)


def test_a_length_that_is_not_given_is_left_to_the_engine(engine, client):
    client.recommend("ann")
    client.recommend("ann", k=7)
    with client.stream("ann") as updates:
        next(updates)
        updates.resubscribe("bob")
        next(updates)
    asked = [request.query.k for request in engine.requests]
    assert asked == [0, 7] and [message.subscribe.k for message in engine.stream_messages] == [0, 0]


@pytest.mark.parametrize(
    ("number", "origin"),
    [(1, Origin.MODEL), (2, Origin.POPULARITY), (3, Origin.COVISITATION), (4, Origin.FREQUENCY)],
)
def test_the_origin_of_a_list_is_told_by_its_name(engine, client, number, origin):
    engine.list = {"items": [{"item_id": "apple"}], "origin": number}
    assert client.recommend("ann").origin == origin


def test_values_of_a_newer_engine_read_as_unknown(engine, client):
    engine.list = {"items": [{"item_id": "apple", "sources": [99]}], "origin": 99}
    ranked = client.recommend("ann")
    assert ranked.origin == "unknown"
    assert ranked.items[0].sources == ("unknown",)


def test_track_sends_the_whole_event_and_returns_its_position(engine, client):
    when = datetime(2024, 5, 6, 7, 8, 9, 250_000, tzinfo=timezone(timedelta(hours=2)))
    tracked = client.track("apple", "ann", "tab-1", "purchase", 2.5, when, "e-1", {"shop": "north"})
    event = engine.requests[0].event
    assert (event.item_id, event.user_id, event.session_id, event.kind) == ("apple", "ann", "tab-1", "purchase")
    assert (event.value, event.event_id, dict(event.attributes)) == (2.5, "e-1", {"shop": "north"})
    assert event.time.ToDatetime(UTC) == when
    assert tracked.event_id == "e-1"
    assert tracked.position == Position("ousel.events", 2, 7)


def test_track_without_id_and_time_makes_up_an_id_and_leaves_the_time_to_the_log(engine, client):
    first, second = client.track("apple", "ann"), client.track("apple", session_id="tab-1")
    events = [request.event for request in engine.requests]
    assert [event.event_id for event in events] == [first.event_id, second.event_id]
    assert len(first.event_id) == 32 and first.event_id != second.event_id
    assert not events[0].HasField("time")
    assert [(event.user_id, event.session_id) for event in events] == [("ann", ""), ("", "tab-1")]


def test_relations_are_sent_as_events_of_their_own(engine, client):
    when = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    tracked = client.relate_users("ann", "bob", "friend", 2.5, when, "e-1", {"shop": "north"})
    assert (tracked.event_id, tracked.position) == ("e-1", Position("ousel.events", 2, 7))
    client.relate_users("ann", "bob", ends=True)
    client.relate_item("apple", "Fruit & Co", event_id="e-2")
    client.relate_item("apple", "Fruit & Co", "has", ends=True)
    social, over, knowledge, gone = (request.event for request in engine.requests)
    assert (social.user_id, social.target_user_id, social.item_id, social.entity_id) == ("ann", "bob", "", "")
    assert (social.kind, social.value, social.time.ToDatetime(UTC), social.ends) == ("friend", 2.5, when, False)
    assert dict(social.attributes) == {"shop": "north"}
    assert (over.target_user_id, over.kind, over.ends, len(over.event_id)) == ("bob", "", True, 32)
    assert (knowledge.item_id, knowledge.entity_id, knowledge.user_id) == ("apple", "Fruit & Co", "")
    assert (knowledge.session_id, knowledge.event_id, knowledge.ends) == ("", "e-2", False)
    assert (gone.kind, gone.ends) == ("has", True)


def test_status_returns_every_figure(engine, client):
    for number, field in enumerate(engine.status.DESCRIPTOR.fields, 1):
        if field.name == "model_metrics":
            engine.status.model_metrics["hit_rate@20"] = 0.25
        elif field.name == "model_versions":
            engine.status.model_versions.extend([1, 3])
        elif field.name == "reflects":
            engine.status.reflects.add(topic="ousel.events", partition=0, offset=5)
        elif field.name == "partitions":
            engine.status.partitions.extend([0, 2])
        elif field.name == "snapshot_time":
            engine.status.snapshot_time.FromMilliseconds(1_700_000_000_250)
        elif field.name == "building":
            engine.status.building.MergeFrom(model_service_pb2.ModelBuild(version=4, progress=0.5, seconds=2.0))
        elif field.name == "refused":
            engine.status.refused.MergeFrom(model_service_pb2.RefusedModel(version=2, reason="it is worse"))
            engine.status.refused.time.FromMilliseconds(1_700_000_000_250)
        elif field.name == "model_origin":
            engine.status.model_origin = model_service_pb2.MODEL_ORIGIN_LOCAL_COPY
        elif field.name == "registry_problem":
            engine.status.registry_problem = "the disk is away"
        elif field.name != "serving":
            setattr(engine.status, field.name, number)
    status = client.status()
    for field in engine.status.DESCRIPTOR.fields:
        expected = getattr(engine.status, field.name)
        if field.name == "model_metrics":
            expected = {"hit_rate@20": 0.25}
        elif field.name == "model_versions":
            expected = (1, 3)
        elif field.name == "reflects":
            expected = (Position("ousel.events", 0, 5),)
        elif field.name == "partitions":
            expected = (0, 2)
        elif field.name == "snapshot_time":
            expected = datetime(2023, 11, 14, 22, 13, 20, 250_000, tzinfo=UTC)
        elif field.name == "building":
            expected = ModelBuild(4, 0.5, 2.0)
        elif field.name == "refused":
            expected = RefusedModel(2, "it is worse", datetime(2023, 11, 14, 22, 13, 20, 250_000, tzinfo=UTC))
        elif field.name == "model_origin":
            expected = ModelOrigin.LOCAL_COPY
        assert getattr(status, field.name) == expected, field.name


@pytest.mark.parametrize(("expected", "sent"), [(None, 0), (3, 3)])
def test_roll_back_says_from_which_version_and_returns_the_one_that_serves(engine, client, expected, sent):
    assert client.roll_back(expected) == RolledBack(version=2, swap_ms=12.0)
    assert [request.expected_version for request in engine.requests] == [sent]


def test_a_roll_back_that_is_refused_says_why_and_is_not_tried_again(engine, client):
    engine.failures.append((grpc.StatusCode.FAILED_PRECONDITION, "there is no generation before version 3"))
    with pytest.raises(OuselError, match="there is no generation before version 3") as caught:
        client.roll_back()
    assert caught.value.code == "FAILED_PRECONDITION"
    engine.failures.append((grpc.StatusCode.UNAVAILABLE, "stopping"))
    with pytest.raises(Unavailable):
        client.roll_back()
    assert len(engine.requests) == 2


@pytest.mark.parametrize("version", [0, -1, 2**64, "3"])
def test_a_version_that_can_not_be_rolled_back_from_is_refused_here(engine, client, version):
    with pytest.raises(InvalidArgument):
        client.roll_back(version)
    assert engine.requests == []


def test_status_before_the_first_snapshot_has_no_time_of_one(client):
    assert client.status().snapshot_time is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"categories": "fruit"}, "categories must be a sequence of strings, got 'fruit'"),
        ({"exclude_item_ids": "kiwi"}, "exclude_item_ids must be a sequence of strings, got 'kiwi'"),
        ({"k": 2**31}, "k must be a whole number from"),
        ({"user_id": "\udcff"}, "user_id must be text that UTF-8 can hold"),
    ],
)
def test_a_query_that_no_message_can_carry_is_refused_here(engine, client, arguments, words):
    with pytest.raises(InvalidArgument, match=words):
        client.recommend(**{"user_id": "ann"} | arguments)
    assert engine.requests == []


def test_a_time_without_zone_is_refused_here(engine, client):
    with pytest.raises(InvalidArgument, match=r"time must have a time zone, as .* has, got 2024-05-06T00:00:00"):
        client.track("apple", "ann", time=datetime(2024, 5, 6))
    with pytest.raises(InvalidArgument, match=r"time must be a datetime with a time zone, .* got 1764370000"):
        client.track("apple", "ann", time=1764370000)
    assert engine.requests == []


def test_a_client_that_is_closed_says_so(engine):
    client = Client(engine.address)
    client.close()
    client.close()
    for ask in (client.status, lambda: client.track("apple", "ann"), lambda: client.stream("ann")):
        with pytest.raises(OuselError, match="the client is closed; make a new one") as failed:
            ask()
        assert failed.value.code == "CANCELLED"
