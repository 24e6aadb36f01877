import threading
from datetime import UTC, datetime, timedelta, timezone

import grpc
import pytest
from ousel import (
    Cause,
    Client,
    DeadlineExceeded,
    InvalidArgument,
    Origin,
    OuselError,
    OutOfRange,
    Position,
    ResourceExhausted,
    RolledBack,
    Source,
    StreamEnded,
    Unavailable,
    subscription,
)


@pytest.fixture
def client(engine):
    with Client(engine.address) as client:
        yield client


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
    with pytest.raises(InvalidArgument, match="after can't be sent"):
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
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidArgument),
        (grpc.StatusCode.OUT_OF_RANGE, OutOfRange),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ResourceExhausted),
        (grpc.StatusCode.FAILED_PRECONDITION, OuselError),
        (grpc.StatusCode.INTERNAL, OuselError),
    ],
)
def test_a_failed_call_raises_the_kind_of_its_status_with_the_engines_words(engine, client, code, kind):
    engine.failures.append((code, "query.k must be 1..1000, got 0"))
    engine.pushback_ms = -1  # by which a server says: don't come back
    with pytest.raises(OuselError) as caught:
        client.recommend("ann", k=0)
    assert type(caught.value) is kind
    assert caught.value.code == code.name
    assert str(caught.value) == "query.k must be 1..1000, got 0"
    assert len(engine.requests) == 1  # none of these is retried


def test_no_engine_at_the_address_says_where_and_what_to_check(closed_port):
    with Client(f"127.0.0.1:{closed_port}") as client, pytest.raises(Unavailable) as caught:
        client.recommend("ann")
    assert caught.value.code == "UNAVAILABLE"
    assert f"127.0.0.1:{closed_port}" in str(caught.value)
    assert "Connection refused" in str(caught.value)
    assert "check that it is running" in str(caught.value)


def test_a_call_without_answer_ends_at_its_time_limit(engine, client):
    engine.hang = True
    with pytest.raises(DeadlineExceeded, match=r"within 0\.1 s"):
        client.recommend("ann", timeout_s=0.1)
    with Client(engine.address, timeout_s=0.2) as impatient, pytest.raises(DeadlineExceeded, match=r"within 0\.2 s"):
        impatient.status()


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.recommend("ann"),
        lambda c: c.track("apple", "ann"),
        lambda c: c.status(),
        lambda c: c.forget_user("ann"),
        lambda c: c.export_user("ann"),
        lambda c: c.get_digest(),
        lambda c: c.take_snapshot(),
    ],
)
def test_unary_calls_are_retried_while_the_engine_is_unavailable(engine, client, call):
    engine.failures.extend([(grpc.StatusCode.UNAVAILABLE, "catching up")] * 2)
    call(client)
    assert len(engine.requests) == 3
    assert engine.requests[0] == engine.requests[1] == engine.requests[2]  # the event_id too: it is folded once


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"categories": "fruit"}, "categories must be a sequence of strings, got 'fruit'"),
        ({"exclude_item_ids": "kiwi"}, "exclude_item_ids must be a sequence of strings, got 'kiwi'"),
        ({"k": 2**31}, "out of range"),
        ({"user_id": "\udcff"}, "surrogates not allowed"),
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


def test_a_stream_yields_lists_with_their_causes(engine, client, make_list):
    engine.on_subscribe = [
        (cause, make_list(f"item-{number}"))
        for number, cause in enumerate(["CAUSE_SUBSCRIBED", "CAUSE_MODEL", "CAUSE_CATALOG", "CAUSE_EVENTS"])
    ]
    engine.end_streams = True
    with client.stream("ann", k=5, categories=["fruit"], exclude_item_ids=["kiwi"], exclude_history=True) as updates:
        seen = [(update.cause, update.list.items[0].item_id) for update in updates]
    assert seen == [
        (Cause.SUBSCRIBED, "item-0"),
        (Cause.MODEL, "item-1"),
        (Cause.CATALOG, "item-2"),
        (Cause.EVENTS, "item-3"),
    ]
    query = engine.stream_messages[0].subscribe
    assert (query.user_id, query.k, query.options.exclude_history) == ("ann", 5, True)
    assert (list(query.options.categories), list(query.options.exclude_item_ids)) == (["fruit"], ["kiwi"])


@pytest.mark.parametrize("who", [{"user_id": "ann"}, {"session_id": "tab-1"}])
def test_an_event_sent_on_a_stream_is_the_subscribers(engine, client, who):
    with client.stream(**who) as updates:
        next(updates)
        event_id = updates.track("kiwi", kind="cart", value=3)
        update = next(updates)
    assert (update.cause, update.list.items[0].item_id) == (Cause.EVENTS, "kiwi")
    event = engine.stream_messages[1].event
    assert {"user_id": event.user_id, "session_id": event.session_id} == {"user_id": "", "session_id": ""} | who
    assert (event.event_id, event.kind, event.value) == (event_id, "cart", 3)


def test_an_event_sent_on_a_stream_may_be_of_another_session_of_the_user(engine, client):
    with client.stream("ann") as updates:
        updates.track("kiwi", session_id="tab-1")
        engine.wait_for(lambda: len(engine.stream_messages) == 2)
    event = engine.stream_messages[1].event
    assert (event.user_id, event.session_id) == ("", "tab-1")  # the engine fills in the user


STRANGERS = [
    ({"user_id": "ann"}, {"user_id": "bob"}, "user_id must be None or the subscribed 'ann', got 'bob'"),
    ({"session_id": "tab-1"}, {"user_id": "ann"}, "to sign in, call resubscribe with user_id and session_id"),
    ({"session_id": "tab-1"}, {"user_id": "ann", "session_id": "tab-1"}, "to sign in, call resubscribe"),
    ({"session_id": "tab-1"}, {"session_id": "tab-2"}, "must be None or the subscribed 'tab-1', got 'tab-2'"),
]


@pytest.mark.parametrize(("subscribed", "event", "words"), STRANGERS)
def test_an_event_of_somebody_else_is_refused_here_and_the_stream_goes_on(engine, client, subscribed, event, words):
    with client.stream(**subscribed) as updates:
        next(updates)
        with pytest.raises(InvalidArgument, match=words):
            updates.track("kiwi", **event)
        updates.track("kiwi")
        next(updates)
    assert [message.HasField("event") for message in engine.stream_messages] == [False, True]


def test_an_anonymous_session_signs_in_by_a_new_subscription_and_its_next_event(engine, client):
    with client.stream(session_id="tab-1") as updates:
        next(updates)
        updates.resubscribe("ann", session_id="tab-1")
        updates.track("kiwi")
        engine.wait_for(lambda: len(engine.stream_messages) == 3)
    event = engine.stream_messages[2].event
    assert (event.user_id, event.session_id) == ("ann", "tab-1")


def test_resubscribe_replaces_the_query_on_the_same_stream(engine, client):
    with client.stream("ann") as updates:
        next(updates)
        updates.resubscribe("bob", k=3)
        assert next(updates).cause == Cause.SUBSCRIBED
        updates.track("kiwi")
        next(updates)
        assert engine.open_streams == 1
    assert engine.stream_messages[1].subscribe.user_id == "bob"
    assert engine.stream_messages[1].subscribe.k == 3
    assert engine.stream_messages[2].event.user_id == "bob"


def test_leaving_a_stream_ends_it_at_the_engine(engine, client):
    with client.stream("ann") as updates:
        next(updates)
    engine.wait_for(lambda: engine.open_streams == 0)
    assert list(updates) == []
    with pytest.raises(StreamEnded):
        updates.track("kiwi")


def test_close_from_another_thread_ends_a_waiting_reader(engine, client):
    updates = client.stream("ann")
    next(updates)
    closer = threading.Timer(0.05, updates.close)
    closer.start()
    assert list(updates) == []  # waits for a second list until closed
    closer.join()


def test_closing_the_client_ends_its_streams(engine, client):
    updates = client.stream("ann")
    next(updates)
    client.close()
    with pytest.raises(StreamEnded):
        next(updates)


def test_a_stream_that_the_engine_ends_takes_no_more_events(engine, client):
    engine.end_streams = True
    updates = client.stream("ann")
    assert len(list(updates)) == 1
    with pytest.raises(StreamEnded):
        updates.track("kiwi")


def test_a_stream_that_fails_raises_the_kind_of_its_status(engine, client):
    engine.stream_failure = (grpc.StatusCode.INVALID_ARGUMENT, "event.kind must be known, got 'hum'")
    with client.stream("ann") as updates:
        next(updates)
        updates.track("kiwi", kind="hum")
        with pytest.raises(InvalidArgument, match="got 'hum'"):
            next(updates)


def test_a_stream_notices_that_the_engine_went_away_and_the_client_finds_it_again(engine, client, restart):
    with client.stream("ann") as updates:
        next(updates)
        restart(engine)
        with pytest.raises(Unavailable, match=engine.address):
            next(updates)
    assert client.recommend("ann").items  # the retries outlast the reconnect


@pytest.mark.parametrize("end", ["closed here", "ended by the engine", "client closed"])
def test_no_stream_thread_stays_behind(engine, client, monkeypatch, end):
    senders = set()
    take = subscription._Outbox.__next__

    def recording_take(outbox):
        senders.add(threading.current_thread())
        return take(outbox)

    monkeypatch.setattr(subscription._Outbox, "__next__", recording_take)
    engine.end_streams = end == "ended by the engine"
    updates = client.stream("ann")
    next(updates)
    if end == "closed here":
        updates.close()
    elif end == "client closed":
        client.close()
    (sender,) = senders
    sender.join(10)
    assert not sender.is_alive()


def test_a_stream_refuses_events_when_the_engine_takes_none(engine, monkeypatch):
    monkeypatch.setattr(subscription, "_MAX_UNSENT", 4)
    engine.deaf = True
    with Client(engine.address, timeout_s=0.2) as client, client.stream("ann") as updates:
        with pytest.raises(DeadlineExceeded, match=r"took no message of this stream for 0\.2 s"):
            for _ in range(1000):  # more than gRPC itself buffers
                updates.track("kiwi", attributes={"note": "x" * 100_000})
        assert next(updates).cause == Cause.SUBSCRIBED  # the stream itself goes on


def test_an_overloaded_engine_is_asked_again_when_it_says_so(engine, client):
    engine.failures.extend([(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls wait")] * 2)
    engine.pushback_ms = 1
    assert client.recommend("ann").items
    assert len(engine.requests) == 3


def test_an_overloaded_engine_that_asks_for_a_long_pause_is_left_alone_for_so_long(engine, client):
    engine.failures.append((grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls wait"))
    engine.pushback_ms = 60_000
    with pytest.raises(DeadlineExceeded):
        client.track("apple", "ann", timeout_s=1.5)  # without the hint the next try would come within 0.1 s
    assert len(engine.requests) == 1


def test_an_engine_that_refuses_nearly_all_calls_is_not_asked_four_times_as_often(engine, client):
    engine.failures.extend([(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls wait")] * 1000)
    engine.pushback_ms = 1
    for _ in range(100):
        with pytest.raises(ResourceExhausted):
            client.recommend("ann")
    assert len(engine.requests) < 200


@pytest.mark.parametrize(
    ("code", "kind"),
    [(grpc.StatusCode.UNAVAILABLE, Unavailable), (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded)],
)
def test_a_reason_that_the_engine_gives_is_told_in_place_of_a_guess_about_the_address(engine, client, code, kind):
    engine.failures.append((code, "Kafka at kafka:9092 did not acknowledge the event"))
    engine.by_engine, engine.pushback_ms = True, -1
    with pytest.raises(kind) as failed:
        client.track("apple", "ann")
    assert str(failed.value) == (
        f"Kafka at kafka:9092 did not acknowledge the event (says the engine at {engine.address})"
    )
    assert len(engine.requests) == 1  # A negative hint means that there is no time for another try.


def test_a_request_that_grpc_finds_too_large_is_the_callers_to_change(engine, client):
    with pytest.raises(InvalidArgument, match=r"larger than the engine at .* takes"):
        client.track("apple", "ann", attributes={"text": "x" * 5_000_000})
    assert engine.requests == []
